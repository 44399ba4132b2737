/**
 * Files as people get them wrong, each with the one line that must come of it: place, fault, remedy. `fatal` ones end
 * the start. Everything is read by an app called `shop` in standalone mode.
 * Size: the table.
 */

export type WrongFile = {
  readonly what: string;
  /** Resource files by name; a text alone is `f.yaml`. */
  readonly resources?: string | Readonly<Record<string, string>>;
  /** A Configuration, `c.yaml`. */
  readonly config?: string;
  readonly line: RegExp;
  readonly fatal?: true;
};

const head = (kind: string, name = "x"): string =>
  `apiVersion: dapr.io/v1alpha1\nkind: ${kind}\nmetadata:\n  name: ${name}\n`;

/** `spec` starts at line 5. */
const component = (spec: string, rest = ""): string => `${head("Component")}${spec}${rest}`;
const memory = "spec:\n  type: state.in-memory\n  version: v1\n";
const items = (text: string, type = "state.in-memory"): string =>
  component(`spec:\n  type: ${type}\n  version: v1\n  metadata:\n${text}`);
const endpoint = (spec: string): string => `${head("HTTPEndpoint")}spec:\n${spec}`;
const subscription = (version: string, spec: string): string =>
  `apiVersion: dapr.io/${version}\nkind: Subscription\nmetadata:\n  name: x\n${spec}`;
const configuration = (spec: string): string => `${head("Configuration")}spec:\n${spec}`;
const secretsFile = (path: string): string =>
  items(`  - name: secretsFile\n    value: ${path}\n`, "secretstores.local.file");

const yaml: readonly WrongFile[] = [
  { what: "a tab", resources: component("spec:\n\ttype: state.in-memory\n"), line: /^f\.yaml:6:1: .*tab/i },
  {
    what: "an open quote",
    resources: component('spec:\n  type: "state.in-memory\n'),
    line: /^f\.yaml:\d+:\d+: .*(quote|closing)/i,
  },
  {
    what: "a key given twice",
    resources: component("spec:\n  type: state.in-memory\n  type: state.nats\n"),
    line: /^f\.yaml:7:3: .*type/,
  },
  {
    what: "a line too far to the left",
    resources: component("spec:\n    type: state.in-memory\n  version: v1\n"),
    line: /^f\.yaml:7:\d+: .*indent/i,
  },
  {
    what: "an open brace",
    resources: "apiVersion: {dapr.io/v1alpha1\nkind: Component\n",
    line: /^f\.yaml:\d+:\d+: /,
  },
  { what: "an unknown alias", resources: component("spec: *base\n"), line: /^f\.yaml:5:7: .*alias/i },
  {
    what: "a list",
    resources: "- apiVersion: dapr.io/v1alpha1\n",
    line: /^f\.yaml:1:1: a resource must be a mapping, not a list; write/,
  },
  {
    what: "no blank after the colon",
    resources: "kind:Component\n",
    line: /^f\.yaml:1:1: a resource must be a mapping, .*blank after each ":"/,
  },
  {
    what: "a file that is no YAML by its name",
    resources: { "f.json": "{}" },
    line: /^f\.json:1:1: .*must end in \.yaml or \.yml/,
  },
  {
    what: "brackets without end",
    resources: `apiVersion: dapr.io/v1alpha1\nkind: ${"[".repeat(5_000)}`,
    line: /^f\.yaml:2:\d+: not valid YAML: nested deeper than 100 levels.*; take some out/,
  },
  {
    what: "lists in lists without end",
    resources: `apiVersion: dapr.io/v1alpha1\nkind: Component\nspec:\n${"- ".repeat(5_000)}x\n`,
    line: /^f\.yaml:4:\d+: not valid YAML: nested deeper than 100 levels.*; take some out/,
  },
  { what: "bytes that are no text", resources: "apiVersion: \u0000\u0001\n", line: /^f\.yaml:1:\d+: / },
];

const headers: readonly WrongFile[] = [
  {
    what: "no kind",
    resources: "apiVersion: dapr.io/v1alpha1\nmetadata:\n  name: x\n",
    line: /^f\.yaml:1:1: kind is missing, write kind: Component/,
  },
  {
    what: "a misspelt kind",
    resources: head("Componnet"),
    line: /^f\.yaml:2:1: kind "Componnet" is not known, did you mean "Component"/,
  },
  {
    what: "a kind in lower case",
    resources: head("component"),
    line: /^f\.yaml:2:1: kind "component" is not known, did you mean "Component"/,
  },
  {
    what: "no apiVersion",
    resources: `kind: Component\nmetadata:\n  name: x\n${memory}`,
    line: /^f\.yaml:1:1: apiVersion is missing, write apiVersion: dapr\.io\/v1alpha1/,
  },
  {
    what: "a misspelt apiVersion",
    resources: component(memory).replace("dapr.io/v1alpha1", "dapr.io/v1"),
    line: /^f\.yaml:1:1: apiVersion "dapr\.io\/v1" is not known for kind Component, write/,
  },
  {
    what: "no metadata",
    resources: `apiVersion: dapr.io/v1alpha1\nkind: Component\n${memory}`,
    line: /^f\.yaml:1:1: metadata\.name is missing/,
  },
  {
    what: "no name",
    resources: component(memory).replace("  name: x", "  namespace: x"),
    line: /^f\.yaml:4:3: metadata\.name is missing/,
  },
  {
    what: "a name with a slash",
    resources: component(memory).replace("name: x", "name: a/b"),
    line: /^f\.yaml:4:3: metadata\.name "a\/b" may not be or contain "\/", choose another/,
  },
  {
    what: "a name with a percent sign",
    resources: component(memory).replace("name: x", "name: a%b"),
    line: /^f\.yaml:4:3: metadata\.name "a%b" may not .* "%"/,
  },
  {
    what: "the name ..",
    resources: component(memory).replace("name: x", 'name: ".."'),
    line: /^f\.yaml:4:3: metadata\.name "\.\." may not/,
  },
  {
    what: "metadata as a list",
    resources: component(memory).replace("  name: x", "  - name: x"),
    line: /^f\.yaml:4:\d+: metadata must be a mapping/,
  },
  {
    what: "scopes as a text",
    resources: component(memory, "scopes: shop\n"),
    line: /^f\.yaml:8:9: scopes must be a list, .* not the text "shop"/,
  },
  {
    what: "a scope with a blank",
    resources: component(memory, 'scopes: [shop, "cart "]\n'),
    line: /^f\.yaml:8:1: scopes .* blanks/,
  },
  {
    what: "scopes in the wrong place",
    resources: component(`${memory}  scopes: [cart]\n`),
    line: /^f\.yaml:8:3: spec\.scopes is not known and is ignored, /,
  },
  {
    what: "metadata.namespase",
    resources: component(memory).replace("name: x", "name: x\n  namespase: y"),
    line: /^f\.yaml:5:3: metadata\.namespase is not known .*"namespace"/,
  },
];

const fromVault = `${items("  - name: maxEntries\n    secretKeyRef:\n      name: max\n")}auth:\n  secretStore: vault\n`;
const emptyVault = secretsFile(`${import.meta.dirname}/empty.json`).replace("name: x", "name: vault");

const components: readonly WrongFile[] = [
  {
    what: "no spec",
    resources: component(""),
    line: /^f\.yaml:1:1: spec is missing, a component needs at least spec\.type/,
  },
  {
    what: "a spec that is a list",
    resources: component("spec:\n- type: state.in-memory\n"),
    line: /^f\.yaml:6:1: spec must be a mapping/,
  },
  {
    what: "no type",
    resources: component("spec:\n  version: v1\n"),
    line: /^f\.yaml:6:3: spec\.type is missing, write for example type:/,
  },
  {
    what: "an empty type",
    resources: component("spec:\n  type:\n"),
    line: /^f\.yaml:6:3: spec\.type is empty, write/,
  },
  {
    what: "a misspelt product",
    resources: component("spec:\n  type: state.in-memroy\n"),
    line: /couldn't find state store state\.in-memroy\/.* \(f\.yaml:6; did you mean state\.in-memory\?\)$/,
    fatal: true,
  },
  {
    what: "a category that is none",
    resources: component("spec:\n  type: stat.in-memory\n"),
    line: /incorrect type stat\.in-memory \(f\.yaml:6; did you mean state\?\)$/,
    fatal: true,
  },
  {
    what: "a category with a capital",
    resources: component("spec:\n  type: State.in-memory\n"),
    line: /incorrect type State\.in-memory \(f\.yaml:6; did you mean state\?\)$/,
    fatal: true,
  },
  {
    what: "a type without a dot",
    resources: component("spec:\n  type: redis\n"),
    line: /incorrect type redis \(f\.yaml:6; a type starts with state, pubsub/,
    fatal: true,
  },
  {
    what: "a version that is none",
    resources: component("spec:\n  type: state.in-memory\n  version: 2\n"),
    line: /couldn't find state store state\.in-memory\/2 \(f\.yaml:6; versions: v1\)$/,
    fatal: true,
  },
  {
    what: "metadata as a mapping",
    resources: items("    maxEntries: 5\n"),
    line: /^f\.yaml:9:5: spec\.metadata must be a list of mappings, each starting with "- "/,
  },
  {
    what: "a metadata item without a name",
    resources: items("  - value: 5\n"),
    line: /^f\.yaml:9:5: spec\.metadata\[0\] has no name and is ignored, write name: and value:/,
  },
  {
    what: "a metadata item given twice",
    resources: items("  - name: maxEntries\n    value: 5\n  - name: maxEntries\n    value: 6\n"),
    line: /^f\.yaml:11:5: spec\.metadata\[1\]: "maxEntries" is given twice, the last one is used/,
  },
  {
    what: "a metadata item given twice in another case",
    resources: items("  - name: maxEntries\n    value: 5\n  - name: maxentries\n    value: 6\n"),
    line: /metadata field "maxentries" is given twice, in different case; keep one \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "a misspelt key of an item",
    resources: items("  - name: maxEntries\n    vale: 5\n"),
    line: /^f\.yaml:10:5: spec\.metadata\[0\]\.vale is not known and is ignored, did you mean "value"/,
  },
  {
    what: "a misspelt metadata name",
    resources: items("  - name: maxEntires\n    value: 5\n"),
    line: /^f\.yaml:9: x .*: metadata field "maxEntires" is not known and ignored; did you mean "maxEntries"/,
  },
  {
    what: "a number that is none",
    resources: items("  - name: maxEntries\n    value: many\n"),
    line: /metadata field "maxEntries": "many" is not an integer of at least 1 \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "a number out of its bounds",
    resources: items("  - name: maxEntries\n    value: 0\n"),
    line: /metadata field "maxEntries": "0" is not a number of at least 1 \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "a word that is none of those",
    resources: items("  - name: storage\n    value: disk\n", "state.nats"),
    line: /metadata field "storage": "disk" is not one of file, memory \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "a duration that is none",
    resources: items("  - name: ackWait\n    value: soon\n", "pubsub.nats"),
    line: /metadata field "ackWait": "soon" is no duration; write e\.g\. 30s.* \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "a required field that is missing",
    resources: items("  - name: multiValued\n    value: false\n", "secretstores.local.file"),
    line: /metadata field "secretsFile" is required: Path of the JSON file.* \(f\.yaml:1\)$/,
    fatal: true,
  },
  {
    what: "a required field that is empty",
    resources: secretsFile('""'),
    line: /metadata field "secretsFile" is required: .* \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "a secrets file that is not there",
    resources: secretsFile("/nowhere/s.json"),
    line: /metadata field "secretsFile": \/nowhere\/s\.json cannot be read: ENOENT.* \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "a secrets file that is no JSON",
    resources: secretsFile("/proc/self/status"),
    line: /\/proc\/self\/status is no JSON: .* \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "an initTimeout without a unit",
    resources: component(`${memory}  initTimeout: "30"\n`),
    line: /^f\.yaml:8:3: spec\.initTimeout "30" is no duration such as 30s or 1m, 5s is used/,
  },
  {
    what: "ignoreErrors in quotes",
    resources: component(`${memory}  ignoreErrors: "true"\n`),
    line: /^f\.yaml:8:17: spec\.ignoreErrors must be true or false, .*remove the quotes/,
  },
  {
    what: "a misspelt auth",
    resources: component(memory, "auth:\n  secretstor: vault\n"),
    line: /^f\.yaml:9:3: auth\.secretstor is not known and is ignored, did you mean "secretStore"/,
  },
  {
    what: "a secretKeyRef that is a text",
    resources: items("  - name: maxEntries\n    secretKeyRef: max\n"),
    line: /^f\.yaml:10:19: spec\.metadata\[0\]\.secretKeyRef must be a mapping/,
  },
  {
    what: "a secretKeyRef without a name",
    resources: items("  - name: maxEntries\n    secretKeyRef:\n      key: max\n"),
    line: /^f\.yaml:11:7: spec\.metadata\[0\]\.secretKeyRef\.name is missing, write/,
  },
  {
    what: "a secretKeyRef without a store",
    resources: items("  - name: maxEntries\n    secretKeyRef:\n      name: max\n"),
    line: /^f\.yaml:9: x \(state\.in-memory\/v1\): maxEntries refers to a secret but auth\.secretStore is not set/,
  },
  {
    what: "a secret store that nobody loads",
    resources: `${items("  - name: maxEntries\n    secretKeyRef:\n      name: max\n")}auth:\n  secretStore: attic\n`,
    line: /^f\.yaml:1: component x .* waits for secret store attic.*; add that component or correct auth\.secretStore/,
  },
  {
    what: "a secret that the store does not have",
    resources: `${fromVault}---\n${emptyVault}`,
    line: /^f\.yaml:9: x \(state\.in-memory\/v1\): getting secret max from vault failed: secret max not found/,
  },
  {
    what: "an environment variable of Dapr's",
    resources: items("  - name: maxEntries\n    envRef: DAPR_MAX\n"),
    line: /^f\.yaml:9: x .* refers to an environment variable that is not allowed: DAPR_MAX/,
  },
  {
    what: "{podName} outside a pod",
    resources: items('  - name: maxEntries\n    value: "{podName}"\n'),
    line: /property maxEntries refers to \{podName\} but podName is not set.* \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "a key prefix with ||",
    resources: items("  - name: keyPrefix\n    value: a||b\n"),
    line: /x \(state\.in-memory\/v1\): input key\/keyPrefix .a\|\|b. can.t contain .\|\|. \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "a direction that is none",
    resources: items(
      '  - name: schedule\n    value: "@every 1h"\n  - name: direction\n    value: inptu\n',
      "bindings.cron",
    ),
    line: /: metadata field "direction": "inptu" is no direction; write "input", .* \(f\.yaml:11\)$/,
    fatal: true,
  },
  {
    what: "a database in a folder that is not there",
    resources: items("  - name: connectionString\n    value: /nowhere/data/x.db\n", "state.sqlite"),
    line: /field "connectionString": file:\/nowhere\/data\/x\.db: .*; create its folder, or .* \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "a template that is not closed",
    resources: items('  - name: redisHost\n    value: "redis-{namespace:6379"\n', "state.redis"),
    line: /field "redisHost": 'redis-\{namespace:6379' is neither host nor host:port; a template .* \(f\.yaml:9\)$/,
    fatal: true,
  },
  {
    what: "one name for two components",
    resources: { "f.yaml": component(memory), "g.yaml": component(memory) },
    line: /: duplicate definition of Component name x .* with existing x .* \(g\.yaml:1 and f\.yaml:1; rename one\)$/,
    fatal: true,
  },
];

const subscriptions: readonly WrongFile[] = [
  {
    what: "a Subscription without spec",
    resources: subscription("v2alpha1", ""),
    line: /^f\.yaml:1:1: spec is missing, a subscription needs spec\.pubsubname and spec\.topic/,
  },
  {
    what: "no pubsubname",
    resources: subscription("v2alpha1", "spec:\n  topic: t\n  routes:\n    default: /x\n"),
    line: /^f\.yaml:6:3: spec\.pubsubname is missing, write/,
  },
  {
    what: "no topic",
    resources: subscription("v2alpha1", "spec:\n  pubsubname: p\n  routes:\n    default: /x\n"),
    line: /^f\.yaml:6:3: spec\.topic is missing, write/,
  },
  {
    what: "route in v2alpha1",
    resources: subscription(
      "v2alpha1",
      "spec:\n  pubsubname: p\n  topic: t\n  route: /x\n  routes:\n    default: /y\n",
    ),
    line: /^f\.yaml:8:3: spec\.route is ignored in dapr\.io\/v2alpha1, use apiVersion: dapr\.io\/v1alpha1, or routes/,
  },
  {
    what: "routes in v1alpha1",
    resources: subscription(
      "v1alpha1",
      "spec:\n  pubsubname: p\n  topic: t\n  route: /x\n  routes:\n    default: /y\n",
    ),
    line: /^f\.yaml:9:3: spec\.routes is ignored in dapr\.io\/v1alpha1, use apiVersion: dapr\.io\/v2alpha1, or route/,
  },
  {
    what: "no route at all",
    resources: subscription("v1alpha1", "spec:\n  pubsubname: p\n  topic: t\n"),
    line: /^f\.yaml:6:3: spec\.route is missing: every event of the topic will be dropped/,
  },
  {
    what: "routes as a list",
    resources: subscription("v2alpha1", "spec:\n  pubsubname: p\n  topic: t\n  routes:\n  - path: /x\n"),
    line: /^f\.yaml:9:3: spec\.routes must be a mapping/,
  },
  {
    what: "a rule that is no mapping",
    resources: subscription(
      "v2alpha1",
      "spec:\n  pubsubname: p\n  topic: t\n  routes:\n    rules: [/x]\n    default: /y\n",
    ),
    line: /^f\.yaml:9:13: spec\.routes\.rules\[0\] must be a mapping/,
  },
  {
    what: "a rule that is no expression",
    resources: subscription(
      "v2alpha1",
      "spec:\n  pubsubname: p\n  topic: t\n  routes:\n    rules:\n    - match: event.type ==\n      path: /x\n",
    ),
    line: /^f\.yaml:1: subscription x: routing rule "event\.type =="/,
    fatal: true,
  },
  {
    what: "a bulk count that is a text",
    resources: subscription(
      "v2alpha1",
      'spec:\n  pubsubname: p\n  topic: t\n  routes:\n    default: /x\n  bulkSubscribe:\n    maxMessagesCount: "10"\n',
    ),
    line: /^f\.yaml:11:23: spec\.bulkSubscribe\.maxMessagesCount must be a whole number, .*remove the quotes/,
  },
  {
    what: "metadata of a Subscription as a list",
    resources: subscription(
      "v2alpha1",
      "spec:\n  pubsubname: p\n  topic: t\n  metadata:\n  - rawPayload\n  routes:\n    default: /x\n",
    ),
    line: /^f\.yaml:9:3: spec\.metadata must be a mapping with a line `name: value`/,
  },
  {
    what: "a misspelt deadLetterTopic",
    resources: subscription("v1alpha1", "spec:\n  pubsubname: p\n  topic: t\n  route: /x\n  deadletter: d\n"),
    line: /^f\.yaml:9:3: spec\.deadletter is not known and is ignored, /,
  },
];

const endpoints: readonly WrongFile[] = [
  {
    what: "no baseUrl",
    resources: endpoint("  headers: []\n"),
    line: /^f\.yaml:6:3: spec\.baseUrl is missing, write for example baseUrl: https:\/\/example\.com/,
  },
  {
    what: "a baseUrl without scheme",
    resources: endpoint("  baseUrl: example.com\n"),
    line: /^f\.yaml:6:3: spec\.baseUrl "example\.com" must start with http:\/\/ or https:\/\//,
  },
  {
    what: "a baseUrl with a query",
    resources: endpoint("  baseUrl: http://a?b=c\n"),
    line: /^f\.yaml:6:3: spec\.baseUrl .* may not have a query or fragment, write them with each call/,
  },
  {
    what: "a password in the baseUrl",
    resources: endpoint("  baseUrl: http://u:p@a\n"),
    line: /^f\.yaml:6:3: .*may not hold a user or password, write an Authorization header/,
  },
  {
    what: "a header name with a blank",
    resources: endpoint("  baseUrl: http://a\n  headers:\n  - name: a b\n    value: c\n"),
    line: /^f\.yaml:8:5: spec\.headers\[0\]\.name "a b" is no header name, use letters, digits and -/,
  },
  {
    what: "a header of the sidecar's own",
    resources: endpoint("  baseUrl: http://a\n  headers:\n  - name: Host\n    value: c\n"),
    line: /^f\.yaml:8:5: .*"Host" is set by the sidecar itself, remove it/,
  },
  {
    what: "a header from a store that is not named",
    resources: endpoint("  baseUrl: http://a\n  headers:\n  - name: A\n    secretKeyRef:\n      name: s\n"),
    line: /^f\.yaml:8:5: spec\.headers\[0\]\.secretKeyRef cannot be read: auth\.secretStore is not set, name/,
  },
  {
    what: "a rootCA that is no certificate",
    resources: endpoint("  baseUrl: https://a\n  clientTLS:\n    rootCA:\n      value: abc\n"),
    line: /^f\.yaml:9:7: spec\.clientTLS\.rootCA must be one or more certificates in PEM form/,
  },
  {
    what: "a certificate without its key",
    resources: endpoint("  baseUrl: https://a\n  clientTLS:\n    certificate:\n      value: abc\n"),
    line: /^f\.yaml:9:7: spec\.clientTLS\.certificate needs spec\.clientTLS\.privateKey beside it/,
  },
  {
    what: "a renegotiation that is none",
    resources: endpoint("  baseUrl: https://a\n  clientTLS:\n    renegotiation: Nevr\n"),
    line: /^f\.yaml:8:5: .*"Nevr" is not known, did you mean "Never".*\(known: Never/,
  },
  {
    what: "one name for two endpoints",
    resources: `${endpoint("  baseUrl: http://a\n")}---\n${endpoint("  baseUrl: http://b\n")}`,
    line: /^f\.yaml:8:1: duplicate definition of HTTPEndpoint name x, first in f\.yaml:1; no .*, rename one/,
  },
];

const resiliency = (spec: string): string => `${head("Resiliency")}spec:\n${spec}`;

const resiliencies: readonly WrongFile[] = [
  {
    what: "a misspelt part of a Resiliency",
    resources: resiliency("  policy: {}\n"),
    line: /^f\.yaml:6:3: spec\.policy is not known and is ignored, known are policies, targets/,
  },
  {
    what: "a policy that nobody defines",
    resources: resiliency("  targets:\n    apps:\n      till:\n        retry: nowhere\n"),
    line: /^f\.yaml:9: retry nowhere of app till is no policy of any Resiliency; it is ignored/,
  },
  {
    what: "a policy that no target names",
    resources: resiliency("  policies:\n    retries:\n      DefaultAppRetry:\n        maxRetries: 3\n"),
    line: /^f\.yaml:8: retry DefaultAppRetry is named by no target and has no effect; name it in spec\.targets/,
  },
  {
    what: "a Resiliency without spec",
    resources: head("Resiliency"),
    line: /^Could not read resiliency policy x: f\.yaml:1:1: spec is missing, write spec\.policies and spec\.targets/,
  },
  {
    what: "a trip that is no expression",
    resources: resiliency("  policies:\n    circuitBreakers:\n      b:\n        trip: requests >\n"),
    line: /^Could not read resiliency policy x: f\.yaml:9:9: .*b\.trip "requests >": .*; write for example/,
  },
  {
    what: "a misspelt kind of policy",
    resources: resiliency("  targets:\n    apps:\n      cart:\n        retries: a\n"),
    line: /^f\.yaml:9:9: spec\.targets\.apps\.cart\.retries is not known and is ignored, known are timeout, retry/,
  },
  {
    what: "a component without a direction",
    resources: resiliency("  targets:\n    components:\n      store:\n        retry: a\n"),
    line: /^f\.yaml:9:9: spec\.targets\.components\.store\.retry is not known and is ignored, known are inbound/,
  },
];

const configurations: readonly WrongFile[] = [
  {
    what: "a Configuration that is a list",
    config: "- a\n",
    line: /^error loading configuration: c\.yaml:1:1: a Configuration must be a mapping, not a list/,
    fatal: true,
  },
  {
    what: "a Configuration of another kind",
    config: head("Component"),
    line: /^c\.yaml:2:1: kind is "Component", a --config file holds a Configuration/,
  },
  {
    what: "two documents",
    config: `${head("Configuration")}---\n${head("Configuration")}`,
    line: /^c\.yaml:6:1: only the first document of a configuration file is read/,
  },
  {
    what: "a misspelt part",
    config: configuration("  trcing:\n    stdout: true\n"),
    line: /^c\.yaml:6:3: spec\.trcing is not known and is ignored, did you mean "tracing"/,
  },
  {
    what: "a protocol of traces that is none",
    config: configuration("  tracing:\n    otel:\n      endpointAddress: a:1\n      protocol: udp\n"),
    line: /^error loading configuration: c\.yaml:9:7: invalid protocol udp provided for .*, write http or grpc/,
    fatal: true,
  },
  {
    what: "a collector without protocol",
    config: configuration("  tracing:\n    otel:\n      endpointAddress: a:1\n"),
    line: /^c\.yaml:8:7: spec\.tracing\.otel\.protocol is missing, so nothing is exported; write http or grpc/,
  },
  {
    what: "a collector with a scheme",
    config: configuration(
      "  tracing:\n    otel:\n      endpointAddress: http://127.0.0.1:1\n      protocol: http\n",
    ),
    line: /^c\.yaml:8:7: spec\.tracing\.otel\.endpointAddress is host:port, .*; write 127\.0\.0\.1:1, and isSecure/,
  },
  {
    what: "a collector that is no address",
    config: configuration("  tracing:\n    otel:\n      endpointAddress: a:b\n      protocol: http\n"),
    line: /c\.yaml:8:7: spec\.tracing\.otel\.endpointAddress is "a:b", write host:port, such as localhost:4317/,
    fatal: true,
  },
  {
    what: "a zipkin that is no URL",
    config: configuration("  tracing:\n    zipkin:\n      endpointAddress: zipkin:9411\n"),
    line: /c\.yaml:8:7: spec\.tracing\.zipkin\.endpointAddress is "zipkin:9411", write a URL such as http:/,
    fatal: true,
  },
  {
    what: "a sampling rate that is no number",
    config: configuration("  tracing:\n    samplingRate: lots\n"),
    line: /^c\.yaml:7:5: spec\.tracing\.samplingRate "lots" is no number, 0\.0001 is used; write a share from/,
  },
  {
    what: "a rule of metrics that is no regular expression",
    config: configuration(
      "  metrics:\n    rules:\n    - name: a\n      labels:\n      - name: path\n        regex:\n          x: (\n",
    ),
    line: /^c\.yaml:12:11: spec\.metrics\.rules\[0\]\.labels\[0\]\.regex\.x: Invalid .*; it is ignored, correct/,
  },
  {
    what: "a rule of metrics without a name",
    config: configuration("  metrics:\n    rules:\n    - labels: []\n"),
    line: /c\.yaml:8:7: spec\.metrics\.rules\[0\]\.name is missing, write for example name: http_server_latency/,
    fatal: true,
  },
  {
    what: "a time without a unit",
    config: configuration("  tracing:\n    otel:\n      timeout: x\n"),
    line: /c\.yaml:8:7: spec\.tracing\.otel\.timeout: .*write for example 30s/,
    fatal: true,
  },
  {
    what: "buckets that are no numbers",
    config: configuration("  metrics:\n    latencyDistributionBuckets: [a]\n"),
    line: /c\.yaml:7:5: spec\.metrics\.latencyDistributionBuckets must be a list of numbers/,
    fatal: true,
  },
  {
    what: "enabled as a text",
    config: configuration('  metrics:\n    enabled: "no"\n'),
    line: /c\.yaml:7:14: spec\.metrics\.enabled must be true or false, not the text "no"/,
    fatal: true,
  },
  {
    what: "a feature without a name",
    config: configuration("  features:\n  - enabled: true\n"),
    line: /c\.yaml:7:5: spec\.features\[0\]\.name is missing, write for example name: HotReload/,
    fatal: true,
  },
  {
    what: "a handler without a type",
    config: configuration("  httpPipeline:\n    handlers:\n    - name: a\n"),
    line: /c\.yaml:8:7: spec\.httpPipeline\.handlers\[0\]\.type is missing, write/,
    fatal: true,
  },
  {
    what: "two scopes for one store",
    config: configuration("  secrets:\n    scopes:\n    - storeName: a\n    - storeName: a\n"),
    line: /c\.yaml:9:7: a storeName is repeated in secrets configuration/,
    fatal: true,
  },
  {
    what: "an access that is none",
    config: configuration("  secrets:\n    scopes:\n    - storeName: a\n      defaultAccess: no\n"),
    line: /c\.yaml:9:7: defaultAccess "\w+" can be either allow or deny/,
    fatal: true,
  },
  {
    what: "a scope of a store that nobody loads",
    config: configuration("  secrets:\n    scopes:\n    - storeName: vault\n"),
    line: /spec\.secrets\.scopes names the secret store vault, which is not loaded; correct storeName or add/,
  },
  {
    what: "deny as a text",
    config: configuration("  components:\n    deny: state.redis\n"),
    line: /c\.yaml:7:11: spec\.components\.deny must be a list, .* not the text "state\.redis"/,
    fatal: true,
  },
  {
    what: "a denied component",
    config: configuration("  components:\n    deny: [state.in-memory]\n"),
    resources: component(memory),
    line: /^f\.yaml:1: component x .* is not loaded: components\.deny of the Configuration forbids it/,
  },
];

export const wrongFiles: readonly WrongFile[] = [
  ...yaml,
  ...headers,
  ...components,
  ...subscriptions,
  ...endpoints,
  ...resiliencies,
  ...configurations,
];
