/** The version of this build. scripts/build.ts and the release set it through package.json. */
import packageFile from "../package.json" with { type: "json" };

/** Our own version; Dapr's clients see it as the runtime version. */
export const version: string = packageFile.version;

/** Version of Dapr whose behaviour this build follows. */
export const daprVersion = "1.18.3";
