import java.io.BufferedReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

import org.eclipse.leshan.client.LeshanClient;
import org.eclipse.leshan.client.LeshanClientBuilder;
import org.eclipse.leshan.client.californium.endpoint.CaliforniumClientEndpointsProvider;
import org.eclipse.leshan.client.californium.endpoint.coap.CoapClientProtocolProvider;
import org.eclipse.leshan.client.engine.DefaultRegistrationEngineFactory;
import org.eclipse.leshan.client.object.Device;
import org.eclipse.leshan.client.object.Security;
import org.eclipse.leshan.client.object.Server;
import org.eclipse.leshan.client.observer.LwM2mClientObserverAdapter;
import org.eclipse.leshan.client.resource.BaseInstanceEnabler;
import org.eclipse.leshan.client.resource.ObjectsInitializer;
import org.eclipse.leshan.client.servers.LwM2mServer;
import org.eclipse.leshan.core.LwM2mId;
import org.eclipse.leshan.core.model.ObjectLoader;
import org.eclipse.leshan.core.model.ObjectModel;
import org.eclipse.leshan.core.model.StaticModel;
import org.eclipse.leshan.core.request.ContentFormat;
import org.eclipse.leshan.core.request.RegisterRequest;
import org.eclipse.leshan.core.response.ReadResponse;

/**
 * A client on the Leshan library 2.0.0-M15 with a temperature and a humidity, which reads commands from a file or pipe.
 *
 * Arguments: the path of that file, the endpoint name, the CoAP port of the server, the lifetime in seconds, the seconds
 * between its updates, and `queue` for queue mode. Commands: `temperature 21.5`, `humidity 40.0`, `send`, `update`,
 * `quit`.
 */
public class ScriptedClient {
    private final Sensor temperature = new Sensor();
    private final Sensor humidity = new Sensor();
    private final LeshanClient client;

    ScriptedClient(String endpoint, int port, int lifetime, int period, boolean queueMode) {
        List<ObjectModel> models = new ArrayList<>(ObjectLoader.loadDefault());
        models.add(Objects.temperature());
        models.add(Objects.humidity());
        ObjectsInitializer objects = new ObjectsInitializer(new StaticModel(models));
        objects.setInstancesForObject(LwM2mId.SECURITY, Security.noSec("coap://127.0.0.1:" + port, 1));
        objects.setInstancesForObject(LwM2mId.SERVER, new Server(1, lifetime));
        objects.setInstancesForObject(LwM2mId.DEVICE, new Device("DeviceHub", "scripted", "1"));
        objects.setInstancesForObject(3303, temperature);
        objects.setInstancesForObject(3304, humidity);
        DefaultRegistrationEngineFactory engine = new DefaultRegistrationEngineFactory();
        engine.setCommunicationPeriod(1000 * period);
        engine.setQueueMode(queueMode);
        LeshanClientBuilder builder = new LeshanClientBuilder(endpoint);
        builder.setObjects(objects.createAll());
        builder.setRegistrationEngineFactory(engine);
        builder.setEndpointsProviders(
                new CaliforniumClientEndpointsProvider.Builder(new CoapClientProtocolProvider()).build());
        client = builder.build();
        client.addObserver(new LwM2mClientObserverAdapter() {
            @Override
            public void onRegistrationSuccess(LwM2mServer server, RegisterRequest request, String id) {
                System.out.println("registered " + id);
            }
        });
        client.start();
    }

    public static void main(String[] arguments) throws Exception {
        ScriptedClient client = new ScriptedClient(arguments[1], Integer.parseInt(arguments[2]),
                Integer.parseInt(arguments[3]), Integer.parseInt(arguments[4]),
                arguments.length > 5 && arguments[5].equals("queue"));
        BufferedReader input = Files.newBufferedReader(Path.of(arguments[0]));
        for (String line = input.readLine(); line != null; line = input.readLine())
            client.take(line.split(" "));
        client.client.destroy(false);
        System.exit(0);
    }

    private void take(String[] words) throws Exception {
        switch (words[0]) {
        case "temperature":
            temperature.set(Double.parseDouble(words[1]));
            break;
        case "humidity":
            humidity.set(Double.parseDouble(words[1]));
            break;
        case "send":
            for (LwM2mServer server : client.getRegisteredServers().values())
                client.getSendService().sendData(server, ContentFormat.SENML_CBOR, List.of("/3303/0/5700"), 5000);
            break;
        case "update":
            client.triggerRegistrationUpdate();
            break;
        case "quit":
            client.destroy(true);
            System.exit(0);
            break;
        default:
            System.out.println("unknown command " + words[0]);
        }
    }

    /** An instance whose resource 5700 is a number that commands change. The library makes instances, too. */
    public static class Sensor extends BaseInstanceEnabler {
        private volatile double value = 20.0;

        void set(double value) {
            this.value = value;
            fireResourceChange(5700);
        }

        @Override
        public ReadResponse read(LwM2mServer server, int resource) {
            return resource == 5700 ? ReadResponse.success(resource, value) : ReadResponse.notFound();
        }

        @Override
        public List<Integer> getAvailableResourceIds(ObjectModel model) {
            return List.of(5700);
        }
    }
}
