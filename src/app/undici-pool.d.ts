/** undici has no exports map, so its pool can be imported alone; its types only come with the index. */
declare module "undici/lib/dispatcher/pool.js" {
  import { Pool } from "undici";
  export default Pool;
}
