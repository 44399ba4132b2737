// Scenarios of the building blocks around a caller: events in every way of the SDK, state, locks, configuration.

import io.dapr.client.DaprClient;
import io.dapr.client.DaprClientBuilder;
import io.dapr.client.DaprPreviewClient;
import io.dapr.client.SubscriptionListener;
import io.dapr.client.domain.CloudEvent;
import io.dapr.client.domain.ConfigurationItem;
import io.dapr.client.domain.HttpExtension;
import io.dapr.client.domain.State;
import io.dapr.client.domain.TransactionalStateOperation;
import io.dapr.client.domain.TransactionalStateOperation.OperationType;
import io.dapr.client.domain.UnlockResponseStatus;
import io.dapr.utils.TypeRef;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import reactor.core.publisher.Mono;

class Blocks {
  static void call(String scenario, DaprClient dapr, List<String> apps) throws Exception {
    try (DaprPreviewClient preview = new DaprClientBuilder().buildPreviewClient()) {
      switch (scenario) {
        case "bulk" -> bulk(preview, dapr, apps);
        case "declared" -> {
          dapr.publishEvent("bus", "declared", Map.of("declared", "yes")).block(Program.LIMIT);
          saw(dapr, apps.get(0), "\"declared\":\"yes\"");
        }
        case "stream" -> stream(preview, dapr);
        case "ttl" -> ttl(dapr);
        case "transaction" -> transaction(dapr);
        case "lock" -> lock(preview);
        case "configuration" -> configuration(dapr);
        default -> throw new IllegalArgumentException("no such scenario");
      }
    }
  }

  /** Waits until an app has seen an event with this text in it. */
  static void saw(DaprClient dapr, String app, String wanted) throws Exception {
    long until = System.nanoTime() + Program.LIMIT.toNanos();
    while (!Program.text(dapr, app, "seen", "", HttpExtension.POST).contains(wanted)) {
      if (System.nanoTime() > until) throw new IllegalStateException(app + " did not see " + wanted);
      Thread.sleep(20);
    }
  }

  static void bulk(DaprPreviewClient preview, DaprClient dapr, List<String> apps) throws Exception {
    var sent = preview.publishEvents("bus", "java.orders", "text/plain", List.of("bulk one", "bulk two"));
    int failed = sent.block(Program.LIMIT).getFailedEntries().size();
    if (failed > 0) throw new IllegalStateException(failed + " events of a bulk publish failed");
    for (String app : apps) {
      saw(dapr, app, "bulk one");
      saw(dapr, app, "bulk two");
    }
  }

  static void stream(DaprPreviewClient preview, DaprClient dapr) throws Exception {
    var taken = new LinkedBlockingQueue<String>();
    var listener =
        new SubscriptionListener<String>() {
          boolean retried;

          @Override
          public Mono<Status> onEvent(CloudEvent<String> event) {
            if (!retried) {
              retried = true;
              return Mono.just(Status.RETRY);
            }
            taken.add(event.getData());
            return Mono.just(Status.SUCCESS);
          }

          @Override
          public void onError(RuntimeException error) {
            taken.add(error.toString());
          }
        };
    try (var subscription = preview.subscribeToEvents("bus", "java.streamed", listener, TypeRef.STRING)) {
      for (String text : List.of("ping", "pong")) {
        dapr.publishEvent("bus", "java.streamed", text).block(Program.LIMIT);
        Program.expect("stream", taken.poll(20, TimeUnit.SECONDS), text);
      }
    }
  }

  static void ttl(DaprClient dapr) throws Exception {
    var item = new State<>("short", "here", null, Map.of("ttlInSeconds", "1"), null);
    long until = System.nanoTime() + Program.LIMIT.toNanos();
    String found;
    // Again if its time is over before it is read.
    do {
      dapr.saveBulkState("statestore", List.of(item)).block(Program.LIMIT);
      found = read(dapr, "short");
    } while (found == null && System.nanoTime() < until);
    Program.expect("before its end", found, "here");
    while (read(dapr, "short") != null) {
      if (System.nanoTime() > until) throw new IllegalStateException("the value outlives its time");
      Thread.sleep(50);
    }
  }

  static String read(DaprClient dapr, String key) {
    return dapr.getState("statestore", key, String.class).block(Program.LIMIT).getValue();
  }

  static void transaction(DaprClient dapr) {
    dapr.saveState("statestore", "gone", "x").block(Program.LIMIT);
    List<TransactionalStateOperation<?>> operations =
        List.of(
            new TransactionalStateOperation<>(OperationType.UPSERT, new State<>("came", "new", "")),
            new TransactionalStateOperation<>(OperationType.DELETE, new State<>("gone")));
    dapr.executeStateTransaction("statestore", operations).block(Program.LIMIT);
    Program.expect("came", read(dapr, "came"), "new");
    Program.expect("gone", String.valueOf(read(dapr, "gone")), "null");
    List<TransactionalStateOperation<?>> old =
        List.of(
            new TransactionalStateOperation<>(OperationType.UPSERT, new State<>("gone", "never", "")),
            new TransactionalStateOperation<>(OperationType.UPSERT, new State<>("came", "never", "1")));
    Program.failure(() -> dapr.executeStateTransaction("statestore", old).block(Program.LIMIT));
    Program.expect("after a refused one", read(dapr, "came") + " " + read(dapr, "gone"), "new null");
  }

  static void lock(DaprPreviewClient preview) {
    boolean one = preview.tryLock("locks", "java", "one", 60).block(Program.LIMIT);
    boolean two = preview.tryLock("locks", "java", "two", 60).block(Program.LIMIT);
    Program.expect("locks", one + " " + two, "true false");
    String told = "";
    for (String owner : List.of("two", "one", "one")) {
      UnlockResponseStatus status = preview.unlock("locks", "java", owner).block(Program.LIMIT);
      told += status + " ";
    }
    Program.expect("unlocks", told, "LOCK_BELONG_TO_OTHERS SUCCESS LOCK_UNEXIST ");
  }

  static void configuration(DaprClient dapr) throws Exception {
    Map<String, ConfigurationItem> found = dapr.getConfiguration("settings", "fixed", "absent").block(Program.LIMIT);
    Program.expect("configuration", found.keySet() + " " + found.get("fixed").getValue(), "[fixed] blue");
    Set<String> values = ConcurrentHashMap.newKeySet();
    var id = new LinkedBlockingQueue<String>();
    var watching =
        dapr.subscribeConfiguration("settings", "changing")
            .subscribe(
                change -> {
                  id.add(change.getSubscriptionId());
                  ConfigurationItem item = change.getItems().get("changing");
                  if (item != null) values.add(item.getValue());
                });
    long until = System.nanoTime() + Program.LIMIT.toNanos();
    while (values.size() < 2) {
      if (System.nanoTime() > until) throw new IllegalStateException("values of a changing item: " + values);
      Thread.sleep(20);
    }
    dapr.unsubscribeConfiguration(id.take(), "settings").block(Program.LIMIT);
    watching.dispose();
  }
}
