/** Names of tables that users choose and that go into statements as they are. */

const part = "[A-Za-z_\\u0080-\\uffff][A-Za-z0-9_$\\u0080-\\uffff]*";
const plain = new RegExp(`^${part}$`);
const qualified = new RegExp(`^${part}(?:\\.${part})?$`);

/** The name, unless it could be anything but a name. Throws naming the metadata field. */
export function tableName(field: string, name: string, form: "plain" | "qualified" = "plain"): string {
  if ((form === "plain" ? plain : qualified).test(name)) return name;
  const shape = form === "plain" ? "letters, digits and _" : "letters, digits and _, optionally schema.table";
  throw new Error(`metadata field "${field}": '${name}' is no table name; use ${shape}`);
}
