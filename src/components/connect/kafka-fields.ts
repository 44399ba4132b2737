/** Metadata fields of all Kafka components, and the client options they mean. */
import type { BaseOptions } from "@platformatic/kafka";
import type { Clock } from "../../../mesh/index.ts";
import type { ComponentContext, MetadataSchema } from "../component.ts";

export const kafkaFields = {
  brokers: { kind: "string", required: true, description: "host:port of brokers, separated by commas" },
  authType: {
    kind: "string",
    required: true,
    oneOf: ["none", "password", "mtls", "oidc", "certificate"],
    description: "How this client shows who it is",
  },
  consumerGroup: { kind: "string", description: "Consumer group; the consumerID unless given" },
  clientId: { kind: "string", description: "Name of this client at the broker; the app id unless given" },
  saslUsername: { kind: "string", description: "With authType password" },
  saslPassword: { kind: "string", secret: true, description: "With authType password" },
  saslMechanism: {
    kind: "string",
    default: "SHA-512",
    oneOf: ["SHA-256", "SHA-512", "PLAINTEXT"],
    description: "With authType password",
  },
  oidcTokenEndpoint: { kind: "string", description: "With authType oidc: URL that gives tokens" },
  oidcClientID: { kind: "string", description: "With authType oidc" },
  oidcClientSecret: { kind: "string", secret: true, description: "With authType oidc" },
  oidcScopes: {
    kind: "string",
    default: "openid",
    description: "With authType oidc: scopes, separated by commas",
  },
  initialOffset: {
    kind: "string",
    default: "newest",
    oneOf: ["newest", "oldest"],
    description: "Where a new group begins",
  },
  maxMessageBytes: {
    kind: "integer",
    default: "1024000",
    min: 1,
    description: "Largest message that is published",
  },
  disableTls: { kind: "boolean", default: "false", description: "No TLS although there is an authType" },
  skipVerify: { kind: "boolean", default: "false", description: "Take any certificate of the broker" },
  caCert: { kind: "string", description: "Certificates to trust, PEM" },
  clientCert: { kind: "string", description: "With authType mtls: certificate, PEM" },
  clientKey: { kind: "string", secret: true, description: "With authType mtls: its private key, PEM" },
  consumeRetryEnabled: { kind: "boolean", description: "What failed is handled again in its place" },
  consumeRetryInterval: {
    kind: "duration",
    bareUnit: "ms",
    default: "100ms",
    description: "Wait before a lost consumer begins again",
  },
  backOffPolicy: {
    kind: "string",
    default: "constant",
    oneOf: ["constant", "exponential"],
    description: "Waits before further tries",
  },
  backOffDuration: { kind: "duration", default: "5s", description: "Wait before a further try (constant)" },
  backOffInitialInterval: { kind: "duration", default: "500ms", description: "First wait (exponential)" },
  backOffMaxInterval: { kind: "duration", default: "60s", description: "Longest wait (exponential)" },
  backOffMaxRetries: { kind: "integer", default: "-1", min: -1, description: "Further tries; -1: for ever" },
  heartbeatInterval: { kind: "duration", default: "3s", description: "Time between heartbeats" },
  sessionTimeout: { kind: "duration", default: "10s", description: "A consumer silent for so long is out" },
  version: {
    kind: "string",
    default: "2.0.0",
    description: "Accepted; versions are agreed on with the broker",
  },
  consumerFetchMin: { kind: "integer", default: "1", min: 1, description: "Bytes that a broker waits for" },
  consumerFetchDefault: {
    kind: "integer",
    default: "1048576",
    min: 1,
    description: "Bytes asked for at once",
  },
  channelBufferSize: {
    kind: "integer",
    default: "256",
    min: 1,
    max: 100_000,
    description: "Messages in hand",
  },
  consumerGroupRebalanceStrategy: {
    kind: "string",
    default: "range",
    oneOf: ["range", "sticky", "roundrobin"],
    description: "Accepted; the partitions of a topic go round among its readers",
  },
  compression: {
    kind: "string",
    default: "none",
    oneOf: ["none", "gzip", "snappy", "lz4", "zstd"],
    description: "Of published messages",
  },
  escapeHeaders: {
    kind: "boolean",
    default: "false",
    description: "Header values are percent-encoded as metadata",
  },
  excludeHeaderMetaRegex: { kind: "string", description: "Metadata that fit this never become headers" },
  producerRequiredAcks: {
    kind: "string",
    default: "all",
    oneOf: ["all", "local", "none"],
    description: "Who must have a message before its publish is done",
  },
  producerRetryMax: {
    kind: "integer",
    default: "5",
    min: 0,
    max: 100,
    description: "Further tries of a publish",
  },
  dialTimeout: { kind: "duration", default: "30s", description: "Longest time to connect" },
  readTimeout: { kind: "duration", default: "30s", description: "Longest time for an answer" },
  writeTimeout: { kind: "duration", default: "30s", description: "Accepted; see readTimeout" },
  metadataTimeout: { kind: "duration", description: "Accepted" },
  clientConnectionTopicMetadataRefreshInterval: {
    kind: "duration",
    default: "8m",
    description: "Age at which what is known of topics is asked again",
  },
  clientConnectionKeepAliveInterval: { kind: "duration", description: "Accepted" },
  schemaRegistryURL: {
    kind: "string",
    description: "Accepted; publishes with valueSchemaType Avro are refused",
  },
} as const satisfies MetadataSchema;

export type KafkaSettings = ComponentContext<typeof kafkaFields>["metadata"];

const mechanisms = {
  "SHA-256": "SCRAM-SHA-256",
  "SHA-512": "SCRAM-SHA-512",
  PLAINTEXT: "PLAIN",
} as const;

/** Options of producers and consumers. Throws Error that names the field at fault. */
export function kafkaOptions(settings: KafkaSettings, appId: string, clock: Clock): BaseOptions {
  const brokers = settings.brokers.split(",").map((broker) => broker.trim());
  for (const broker of brokers) {
    if (!/^\S+:\d{1,5}$/.test(broker))
      throw new Error(`metadata field "brokers": "${broker}" is no host:port`);
  }
  return {
    clientId: settings.clientId ?? appId,
    bootstrapBrokers: brokers,
    connectTimeout: settings.dialTimeout,
    requestTimeout: settings.readTimeout,
    retries: settings.producerRetryMax,
    retryDelay: 250,
    metadataMaxAge: settings.clientConnectionTopicMetadataRefreshInterval,
    autocreateTopics: true,
    ...(settings.authType === "none" || settings.disableTls ? {} : { tls: tlsOf(settings) }),
    ...saslOf(settings, clock),
  };
}

function tlsOf({
  authType,
  skipVerify,
  caCert,
  clientCert,
  clientKey,
}: KafkaSettings): NonNullable<BaseOptions["tls"]> {
  const shows = clientCert !== undefined && clientKey !== undefined;
  if ((authType === "mtls" || authType === "certificate") && !shows) {
    throw new Error(`metadata fields "clientCert" and "clientKey" are required with authType ${authType}`);
  }
  return {
    rejectUnauthorized: !skipVerify,
    ...(caCert === undefined ? {} : { ca: caCert }),
    ...(shows ? { cert: clientCert, key: clientKey } : {}),
  };
}

function saslOf(settings: KafkaSettings, clock: Clock): Pick<BaseOptions, "sasl"> {
  const { authType, saslUsername, saslPassword, saslMechanism } = settings;
  if (authType === "oidc")
    return { sasl: { mechanism: "OAUTHBEARER", token: () => fetchToken(settings, clock) } };
  if (authType !== "password") return {};
  if (saslUsername === undefined || saslPassword === undefined) {
    throw new Error('metadata fields "saslUsername" and "saslPassword" are required with authType password');
  }
  return {
    sasl: {
      mechanism: mechanisms[saslMechanism as "SHA-256"],
      username: saslUsername,
      password: saslPassword,
    },
  };
}

/** Longest time for a token, ms. */
const tokenTimeoutMs = 10_000;

/** A token for one connection, by the client credentials grant of OAuth 2.0. */
async function fetchToken(settings: KafkaSettings, clock: Clock): Promise<string> {
  const { oidcTokenEndpoint = "", oidcClientID = "", oidcClientSecret = "", oidcScopes } = settings;
  if (URL.parse(oidcTokenEndpoint) === null) throw new Error('metadata field "oidcTokenEndpoint" is no URL');
  const body = new URLSearchParams({
    grant_type: "client_credentials",
    client_id: oidcClientID,
    client_secret: oidcClientSecret,
    scope: oidcScopes.split(",").join(" "),
  });
  const late = new AbortController();
  const timer = clock.setTimeout(() => late.abort(new Error("the token endpoint is silent")), tokenTimeoutMs);
  const answer = await fetch(oidcTokenEndpoint, { method: "POST", body, signal: late.signal });
  timer.cancel();
  if (!answer.ok) throw new Error(`the token endpoint answered status ${answer.status}`);
  const token = ((await answer.json()) as { access_token?: unknown }).access_token;
  if (typeof token !== "string") throw new Error("the token endpoint's answer has no access_token");
  return token;
}
