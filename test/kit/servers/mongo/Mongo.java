import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.ServerVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.List;

/** Serves the wire protocol of MongoDB on 127.0.0.1; arguments: port, data file. Ends in order on SIGTERM. */
public class Mongo {
  /** What drivers of today ask for at least; the server itself says 8. */
  private static final int WIRE_VERSION = 9;

  public static void main(String[] args) throws Exception {
    // It changes documents in place while others are still being sent. One command at a time, answered by a copy, is
    // what makes a document atomic, as MongoDB's are.
    H2Backend backend = new H2Backend(args[1]) {
      @Override
      public synchronized Document handleMessage(MongoMessage message) {
        return super.handleMessage(message).cloneDeeply();
      }
    };
    MongoServer server = new MongoServer(backend.version(new MongoVersion() {
      @Override
      public int getWireVersion() {
        return WIRE_VERSION;
      }

      @Override
      public List<Integer> getVersionArray() {
        return ServerVersion.MONGO_5_0.getVersionArray();
      }
    }));
    server.bind("127.0.0.1", Integer.parseInt(args[0]));
    Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
    Thread.currentThread().join();
  }
}
