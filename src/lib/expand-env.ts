/**
 * `$NAME` and `${NAME}` in configuration files, as Go's os.Expand replaces them.
 */

/** A brace that is never closed is dropped; a name of one sign or digit ends after it. */
const VARIABLE = /\$(?:\{([^}]*)\}|([A-Za-z_]\w*)|([0-9*#$@!?-])|\{)/g;

/** Replaces every variable by its text, an unknown one by nothing; a `$` before anything else stays. */
export function expandEnv(text: string, env: Readonly<Record<string, string | undefined>>): string {
  return text.replace(VARIABLE, (_match, braced?: string, word?: string, sign?: string) => {
    const name = braced ?? word ?? sign ?? "";
    return Object.hasOwn(env, name) ? (env[name] ?? "") : "";
  });
}
