/**
 * Who may publish to and subscribe to which topic of a component, by the component's own metadata:
 * `publishingScopes`, `subscriptionScopes`, `allowedTopics` and `protectedTopics`.
 */

export type TopicScopes = {
  mayPublish(topic: string): boolean;
  maySubscribe(topic: string): boolean;
};

/** Reads the four properties (names in any case) for one app. Matching is exact. */
export function readScopes(properties: Readonly<Record<string, string>>, appId: string): TopicScopes {
  const allowed = topicSet(property(properties, "allowedTopics"));
  const shielded = topicSet(property(properties, "protectedTopics"));
  const decide = (own: ReadonlySet<string> | undefined): ((topic: string) => boolean) => {
    if (allowed.size === 0 && shielded.size === 0 && own === undefined) return () => true;
    return (topic) => {
      if (allowed.size > 0 && !allowed.has(topic)) return false;
      if (!shielded.has(topic) && own === undefined) return true;
      return own !== undefined && own.has(topic);
    };
  };
  return {
    mayPublish: decide(appTopics(property(properties, "publishingScopes"), appId)),
    maySubscribe: decide(appTopics(property(properties, "subscriptionScopes"), appId)),
  };
}

function property(properties: Readonly<Record<string, string>>, name: string): string {
  const wanted = name.toLowerCase();
  for (const key of Object.keys(properties)) if (key.toLowerCase() === wanted) return properties[key]!;
  return "";
}

/** `t1, t2` as a set; spaces never count. */
function topicSet(list: string): ReadonlySet<string> {
  const topics = list.replaceAll(" ", "").split(",");
  return new Set(topics.filter((topic) => topic !== ""));
}

/** The topics of one app in `app1=t1,t2;app2=`, of all its entries; undefined when the app is not named. */
function appTopics(scopes: string, appId: string): ReadonlySet<string> | undefined {
  const entries = scopes.replaceAll(" ", "").split(";");
  const own = entries.flatMap((entry) => {
    const equals = entry.indexOf("=");
    return equals !== -1 && entry.slice(0, equals) === appId ? [entry.slice(equals + 1)] : [];
  });
  return own.length === 0 ? undefined : topicSet(own.join(","));
}
