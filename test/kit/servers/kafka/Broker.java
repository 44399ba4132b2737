/** Prepares the folder of a broker where that is not done yet, and runs the broker: settings file, cluster id. */
public final class Broker {
  public static void main(String[] args) throws Exception {
    String[] format = {"format", "--ignore-formatted", "-t", args[1], "-c", args[0]};
    int code = kafka.tools.StorageTool.execute(format, System.out);
    if (code != 0) System.exit(code);
    kafka.Kafka.main(new String[] {args[0]});
  }
}
