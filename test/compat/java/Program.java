// The Java program of test/compat/java-sdk.test.ts, on the unmodified Java SDK. `serve` is an app (SDK_PROTOCOL http,
// or grpc on the SDK's generated AppCallback); `call` runs scenarios against other apps, all in
// one process because a JVM starts slowly, and prints a line for each.

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.Empty;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.dapr.client.DaprClient;
import io.dapr.client.DaprClientBuilder;
import io.dapr.client.DaprHttp;
import io.dapr.client.domain.HttpExtension;
import io.dapr.client.domain.State;
import io.dapr.v1.AppCallbackGrpc;
import io.dapr.v1.CommonProtos;
import io.dapr.v1.DaprAppCallbackProtos;
import io.dapr.v1.DaprGrpc;
import io.dapr.v1.DaprProtos;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.ServerBuilder;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Executors;

public class Program {
  static final Duration LIMIT = Duration.ofSeconds(20);
  static final List<String> seen = new CopyOnWriteArrayList<>();

  public static void main(String[] args) throws Exception {
    if (args.length > 1 && args[0].equals("call")) {
      for (String scenario : args[1].split(",")) {
        try {
          call(scenario, List.of(args).subList(2, args.length));
          System.out.println(scenario + ": as expected");
        } catch (Throwable error) {
          System.out.println(scenario + ": failed, " + error);
        }
      }
      System.exit(0);
    }
    int port = Integer.parseInt(System.getenv("APP_PORT"));
    if ("grpc".equals(System.getenv("SDK_PROTOCOL"))) {
      ServerBuilder.forPort(port).addService(new Callback()).build().start().awaitTermination();
    } else {
      serveHttp(port);
    }
  }

  static void serveHttp(int port) throws IOException {
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
    server.setExecutor(Executors.newCachedThreadPool());
    server.createContext("/", Program::answer);
    server.start();
  }

  static void answer(HttpExchange exchange) throws IOException {
    String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
    String query = exchange.getRequestURI().getRawQuery();
    String text;
    int status = 200;
    String type = "text/plain";
    switch (exchange.getRequestURI().getPath()) {
      case "/dapr/subscribe" -> {
        type = "application/json";
        text = "[{\"pubsubname\":\"bus\",\"topic\":\"java.orders\",\"route\":\"/orders\"}]";
      }
      case "/echo" -> text = exchange.getRequestMethod() + " " + (query == null ? "" : query) + " " + body;
      case "/orders" -> {
        seen.add(body);
        text = "";
      }
      case "/seen" -> text = String.join("\n", seen);
      case "/ask" -> text = ask(body);
      default -> {
        status = 404;
        text = "no such method";
      }
    }
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("Content-Type", type);
    exchange.sendResponseHeaders(status, bytes.length == 0 ? -1 : bytes.length);
    exchange.getResponseBody().write(bytes);
    exchange.close();
  }

  /** Calls another app through the own sidecar. */
  static String ask(String other) {
    try (DaprClient dapr = new DaprClientBuilder().build()) {
      return text(dapr, other, "echo", "from " + System.getenv("APP_ID"), HttpExtension.POST);
    } catch (Exception error) {
      throw new IllegalStateException(error);
    }
  }

  static class Callback extends AppCallbackGrpc.AppCallbackImplBase {
    @Override
    public void onInvoke(CommonProtos.InvokeRequest request, StreamObserver<CommonProtos.InvokeResponse> out) {
      String method = request.getMethod().replaceFirst("^/", "");
      String body = request.getData().getValue().toStringUtf8();
      String answer;
      switch (method) {
        case "echo" -> {
          CommonProtos.HTTPExtension extension = request.getHttpExtension();
          answer = extension.getVerb() + " " + extension.getQuerystring() + " " + body;
        }
        case "seen" -> answer = String.join("\n", seen);
        case "ask" -> answer = ask(body);
        default -> {
          out.onError(Status.NOT_FOUND.withDescription("no such method").asRuntimeException());
          return;
        }
      }
      Any data = Any.newBuilder().setValue(ByteString.copyFromUtf8(answer)).build();
      out.onNext(CommonProtos.InvokeResponse.newBuilder().setData(data).setContentType("text/plain").build());
      out.onCompleted();
    }

    @Override
    public void listTopicSubscriptions(
        Empty request, StreamObserver<DaprAppCallbackProtos.ListTopicSubscriptionsResponse> out) {
      var topic = CommonTopic.of("bus", "java.orders");
      out.onNext(DaprAppCallbackProtos.ListTopicSubscriptionsResponse.newBuilder().addSubscriptions(topic).build());
      out.onCompleted();
    }

    @Override
    public void onTopicEvent(
        DaprAppCallbackProtos.TopicEventRequest request,
        StreamObserver<DaprAppCallbackProtos.TopicEventResponse> out) {
      seen.add(request.getData().toStringUtf8());
      out.onNext(DaprAppCallbackProtos.TopicEventResponse.getDefaultInstance());
      out.onCompleted();
    }
  }

  static class CommonTopic {
    static DaprAppCallbackProtos.TopicSubscription of(String pubsub, String topic) {
      return DaprAppCallbackProtos.TopicSubscription.newBuilder().setPubsubName(pubsub).setTopic(topic).build();
    }
  }

  static void call(String scenario, List<String> apps) throws Exception {
    try (DaprClient dapr = new DaprClientBuilder().build()) {
      dapr.waitForSidecar(10_000).block(LIMIT);
      switch (scenario) {
        case "invoke_http" -> {
          for (String id : apps) {
            expect(id, text(dapr, id, "echo", "hé", HttpExtension.PUT), "PUT  hé");
            var search = Map.of("a", List.of("1"));
            var query = new HttpExtension(DaprHttp.HttpMethods.POST, search, Map.of());
            expect(id, text(dapr, id, "echo", "x", query), "POST a=1 x");
            String failed = failure(() -> text(dapr, id, "nothing", "x", HttpExtension.POST));
            expectIn(id, failed, "404");
          }
          expectIn("unknown app", failure(() -> text(dapr, "nobody", "x", "", HttpExtension.GET)), "ERR_DIRECT_INVOKE");
        }
        case "between" -> {
          for (int i = 0; i < apps.size(); i++) {
            String other = apps.get((i + 1) % apps.size());
            expect(other, text(dapr, apps.get(i), "ask", other, HttpExtension.POST), "POST  from " + apps.get(i));
          }
        }
        case "invoke_grpc" -> invokeOverGrpc(apps);
        case "publish" -> {
          dapr.publishEvent("bus", "java.orders", Map.of("id", 7)).block(LIMIT);
          for (String id : apps) {
            long until = System.nanoTime() + LIMIT.toNanos();
            while (!text(dapr, id, "seen", "", HttpExtension.POST).contains("\"id\":7")) {
              if (System.nanoTime() > until) throw new IllegalStateException(id + " saw no event");
              Thread.sleep(20);
            }
          }
        }
        case "state" -> {
          dapr.saveState("statestore", "java", "one").block(LIMIT);
          State<String> first = dapr.getState("statestore", "java", String.class).block(LIMIT);
          expect("state", first.getValue(), "one");
          dapr.saveState("statestore", "java", first.getEtag(), "two", null).block(LIMIT);
          failure(() -> dapr.saveState("statestore", "java", first.getEtag(), "three", null).block(LIMIT));
          expect("state", dapr.getState("statestore", "java", String.class).block(LIMIT).getValue(), "two");
          dapr.deleteState("statestore", "java").block(LIMIT);
          String gone = dapr.getState("statestore", "java", String.class).block(LIMIT).getValue();
          if (gone != null) throw new IllegalStateException("still there: " + gone);
        }
        default -> Blocks.call(scenario, dapr, apps);
      }
    }
  }

  static void invokeOverGrpc(List<String> apps) {
    int port = Integer.parseInt(System.getenv("DAPR_GRPC_PORT"));
    ManagedChannel channel = ManagedChannelBuilder.forAddress("127.0.0.1", port).usePlaintext().build();
    DaprGrpc.DaprBlockingStub stub = DaprGrpc.newBlockingStub(channel);
    for (String id : apps) {
      expect(id, stub.invokeService(request(id, "echo")).getData().getValue().toStringUtf8(), "PUT a=1 hé");
      String failed = failure(() -> stub.invokeService(request(id, "nothing")));
      expectIn(id, failed, "NOT_FOUND");
    }
    try {
      stub.invokeService(request("nobody", "x"));
      throw new IllegalStateException("an unknown app answered");
    } catch (StatusRuntimeException error) {
      expectIn("unknown app", error.getStatus().getDescription(), "failed to invoke, id: nobody");
    } finally {
      channel.shutdownNow();
    }
  }

  static DaprProtos.InvokeServiceRequest request(String id, String method) {
    var verb = CommonProtos.HTTPExtension.Verb.PUT;
    var extension = CommonProtos.HTTPExtension.newBuilder().setVerb(verb).setQuerystring("a=1");
    Any data = Any.newBuilder().setValue(ByteString.copyFromUtf8("hé")).build();
    var message = CommonProtos.InvokeRequest.newBuilder().setMethod(method).setData(data);
    message.setContentType("text/plain").setHttpExtension(extension);
    return DaprProtos.InvokeServiceRequest.newBuilder().setId(id).setMessage(message).build();
  }

  static String text(DaprClient dapr, String id, String method, String body, HttpExtension extension) {
    byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
    byte[] answer = dapr.invokeMethod(id, method, bytes, extension, Map.of(), byte[].class).block(LIMIT);
    return answer == null ? "" : new String(answer, StandardCharsets.UTF_8);
  }

  interface Task {
    void run() throws Exception;
  }

  /** Text of the error with which a task ends. */
  static String failure(Task task) {
    try {
      task.run();
    } catch (Exception error) {
      return String.valueOf(error.getMessage());
    }
    throw new IllegalStateException("there was no error");
  }

  static void expect(String what, String found, String wanted) {
    if (!wanted.equals(found)) throw new IllegalStateException(what + ": " + found + ", not " + wanted);
  }

  static void expectIn(String what, String found, String part) {
    if (found == null || !found.contains(part)) throw new IllegalStateException(what + ": " + found + " lacks " + part);
  }
}
