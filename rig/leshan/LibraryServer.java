import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

import org.eclipse.leshan.core.link.Link;
import org.eclipse.leshan.core.link.attributes.Attribute;
import org.eclipse.leshan.core.model.ObjectLoader;
import org.eclipse.leshan.core.model.ObjectModel;
import org.eclipse.leshan.core.node.LwM2mChildNode;
import org.eclipse.leshan.core.node.LwM2mNode;
import org.eclipse.leshan.core.node.LwM2mObject;
import org.eclipse.leshan.core.node.LwM2mObjectInstance;
import org.eclipse.leshan.core.node.LwM2mPath;
import org.eclipse.leshan.core.node.LwM2mResource;
import org.eclipse.leshan.core.node.LwM2mResourceInstance;
import org.eclipse.leshan.core.node.TimestampedLwM2mNodes;
import org.eclipse.leshan.core.model.ResourceModel.Type;
import org.eclipse.leshan.core.observation.CompositeObservation;
import org.eclipse.leshan.core.observation.Observation;
import org.eclipse.leshan.core.observation.SingleObservation;
import org.eclipse.leshan.core.request.ContentFormat;
import org.eclipse.leshan.core.request.ObserveCompositeRequest;
import org.eclipse.leshan.core.request.ObserveRequest;
import org.eclipse.leshan.core.request.ReadRequest;
import org.eclipse.leshan.core.request.SendRequest;
import org.eclipse.leshan.core.request.exception.ClientSleepingException;
import org.eclipse.leshan.core.request.exception.InvalidRequestException;
import org.eclipse.leshan.core.response.LwM2mResponse;
import org.eclipse.leshan.core.response.ObserveCompositeResponse;
import org.eclipse.leshan.core.response.ObserveResponse;
import org.eclipse.leshan.core.response.ReadResponse;
import org.eclipse.leshan.core.util.Hex;
import org.eclipse.leshan.server.LeshanServer;
import org.eclipse.leshan.server.LeshanServerBuilder;
import org.eclipse.leshan.server.californium.endpoint.CaliforniumServerEndpointsProvider;
import org.eclipse.leshan.server.californium.endpoint.coap.CoapServerProtocolProvider;
import org.eclipse.leshan.server.model.VersionedModelProvider;
import org.eclipse.leshan.server.observation.ObservationListener;
import org.eclipse.leshan.server.queue.PresenceListener;
import org.eclipse.leshan.server.queue.StaticClientAwakeTimeProvider;
import org.eclipse.leshan.server.registration.InMemoryRegistrationStore;
import org.eclipse.leshan.server.registration.Registration;
import org.eclipse.leshan.server.registration.RegistrationListener;
import org.eclipse.leshan.server.registration.RegistrationUpdate;
import org.eclipse.leshan.server.send.SendListener;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;

/**
 * A server on the Leshan libraries 2.0.0-M15, with the part of the demo server's REST API and stream of events that
 * DeviceHub uses. The demo server of that version is not published as a library.
 *
 * Arguments: the CoAP port, the HTTP port, and the milliseconds for which a client in queue mode is awake.
 */
public class LibraryServer {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final byte[] ALIVE = "\r\n".getBytes(StandardCharsets.UTF_8);

    private final Collection<BlockingQueue<byte[]>> streams = new CopyOnWriteArrayList<>();
    private final LeshanServer leshan;

    LibraryServer(int coapPort, int awakeMilliseconds) throws Exception {
        List<ObjectModel> models = new ArrayList<>(ObjectLoader.loadAllDefault());
        models.add(Objects.temperature());
        CaliforniumServerEndpointsProvider.Builder endpoints = new CaliforniumServerEndpointsProvider.Builder(
                new CoapServerProtocolProvider());
        endpoints.addEndpoint(new URI("coap://127.0.0.1:" + coapPort));
        LeshanServerBuilder builder = new LeshanServerBuilder();
        builder.setEndpointsProviders(endpoints.build());
        builder.setObjectModelProvider(new VersionedModelProvider(models));
        builder.setRegistrationStore(new InMemoryRegistrationStore(1));
        builder.setClientAwakeTimeProvider(new StaticClientAwakeTimeProvider(awakeMilliseconds));
        leshan = builder.build();
        leshan.getRegistrationService().addListener(new Registrations());
        leshan.getPresenceService().addListener(new Presence());
        leshan.getObservationService().addListener(new Observations());
        leshan.getSendService().addListener(new Sends());
        leshan.start();
    }

    public static void main(String[] arguments) throws Exception {
        LibraryServer server = new LibraryServer(Integer.parseInt(arguments[0]), Integer.parseInt(arguments[2]));
        HttpServer http = HttpServer.create(
                new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[1])), 0);
        http.setExecutor(Executors.newCachedThreadPool());
        http.createContext("/api/event", server::stream);
        http.createContext("/api/clients", server::clients);
        http.start();
        System.out.println("ready");
    }

    // Events

    private void emit(String name, JsonNode data) {
        byte[] text = ("event: " + name + "\r\ndata: " + data + "\r\n\r\n").getBytes(StandardCharsets.UTF_8);
        streams.forEach(stream -> stream.add(text));
    }

    private void stream(HttpExchange exchange) throws IOException {
        String accepted = exchange.getRequestHeaders().getFirst("Accept");
        if (accepted == null || !accepted.contains("text/event-stream")) {
            reply(exchange, 405, null, "Method Not Allowed");
            return;
        }
        BlockingQueue<byte[]> stream = new LinkedBlockingQueue<>();
        streams.add(stream);
        try (OutputStream body = exchange.getResponseBody()) {
            exchange.getResponseHeaders().set("Content-Type", "text/event-stream;charset=utf-8");
            exchange.sendResponseHeaders(200, 0);
            body.flush();
            while (true) {
                byte[] text = stream.poll(5, TimeUnit.SECONDS);
                body.write(text == null ? ALIVE : text);
                body.flush();
            }
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        } finally {
            streams.remove(stream);
        }
    }

    private class Registrations implements RegistrationListener {
        @Override
        public void registered(Registration registration, Registration previous, Collection<Observation> observations) {
            emit("REGISTRATION", of(registration));
        }

        @Override
        public void updated(RegistrationUpdate update, Registration updated, Registration previous) {
            ObjectNode changes = JSON.createObjectNode().put("registrationId", update.getRegistrationId());
            if (update.getLifeTimeInSec() != null)
                changes.put("lifetime", update.getLifeTimeInSec());
            if (update.getObjectLinks() != null)
                changes.set("objectLinks", of(update.getObjectLinks()));
            ObjectNode data = JSON.createObjectNode();
            data.set("registration", of(updated));
            data.set("update", changes);
            emit("UPDATED", data);
        }

        @Override
        public void unregistered(Registration registration, Collection<Observation> observations, boolean expired,
                Registration replacement) {
            emit("DEREGISTRATION", of(registration));
        }
    }

    private class Presence implements PresenceListener {
        @Override
        public void onAwake(Registration registration) {
            emit("AWAKE", JSON.createObjectNode().put("ep", registration.getEndpoint()));
        }

        @Override
        public void onSleeping(Registration registration) {
            emit("SLEEPING", JSON.createObjectNode().put("ep", registration.getEndpoint()));
        }
    }

    private class Observations implements ObservationListener {
        @Override
        public void newObservation(Observation observation, Registration registration) {
        }

        @Override
        public void cancelled(Observation observation) {
        }

        @Override
        public void onResponse(SingleObservation observation, Registration registration, ObserveResponse response) {
            ObjectNode data = JSON.createObjectNode();
            data.put("ep", registration.getEndpoint()).put("kind", "single");
            data.put("res", observation.getPath().toString());
            data.set("val", of(response.getContent()));
            emit("NOTIFICATION", data);
        }

        @Override
        public void onResponse(CompositeObservation observation, Registration registration,
                ObserveCompositeResponse response) {
            ObjectNode data = JSON.createObjectNode();
            data.put("ep", registration.getEndpoint()).put("kind", "composite");
            data.set("val", of(response.getContent()));
            ArrayNode paths = data.putArray("paths");
            observation.getPaths().forEach(path -> paths.add(path.toString()));
            emit("NOTIFICATION", data);
        }

        @Override
        public void onError(Observation observation, Registration registration, Exception error) {
            System.out.println("error of an observation: " + error);
        }
    }

    private class Sends implements SendListener {
        @Override
        public void dataReceived(Registration registration, TimestampedLwM2mNodes nodes, SendRequest request) {
            ObjectNode data = JSON.createObjectNode().put("ep", registration.getEndpoint());
            data.set("val", of(nodes.getNodes()));
            emit("SEND", data);
        }

        @Override
        public void onError(Registration registration, String message, Exception error) {
            System.out.println("error of a Send: " + message);
        }
    }

    // Requests

    private void clients(HttpExchange exchange) throws IOException {
        try {
            answer(exchange);
        } catch (ClientSleepingException | InvalidRequestException error) {
            reply(exchange, 400, null, "Invalid request: " + error.getMessage());
        } catch (Exception error) {
            reply(exchange, 500, null, "Unexpected exception: " + error.getMessage());
        }
    }

    private void answer(HttpExchange exchange) throws Exception {
        String[] levels = exchange.getRequestURI().getPath().substring("/api/clients".length()).split("/");
        if (levels.length < 2) {
            ArrayNode all = JSON.createArrayNode();
            Iterator<Registration> registrations = leshan.getRegistrationService().getAllRegistrations();
            registrations.forEachRemaining(registration -> all.add(of(registration)));
            reply(exchange, all);
            return;
        }
        Registration registration = leshan.getRegistrationService().getByEndpoint(levels[1]);
        if (registration == null) {
            reply(exchange, 400, "text/plain", "No registered client with id '" + levels[1] + "'");
            return;
        }
        Map<String, String> query = query(exchange);
        long timeout = 1000L * Integer.parseInt(query.getOrDefault("timeout", "5"));
        String last = levels[levels.length - 1];
        if (levels.length == 2)
            reply(exchange, of(registration));
        else if (levels[2].equals("composite"))
            reply(exchange, leshan.send(registration, composite(query), timeout));
        else if (last.equals("observe"))
            reply(exchange, leshan.send(registration, new ObserveRequest(path(levels, levels.length - 1)), timeout));
        else
            reply(exchange, leshan.send(registration, new ReadRequest(path(levels, levels.length)), timeout));
    }

    private static ObserveCompositeRequest composite(Map<String, String> query) {
        return new ObserveCompositeRequest(ContentFormat.fromName(query.get("pathformat")),
                ContentFormat.fromName(query.get("nodeformat")), query.get("paths").split(","));
    }

    private static String path(String[] levels, int end) {
        return "/" + String.join("/", List.of(levels).subList(2, end));
    }

    private static Map<String, String> query(HttpExchange exchange) {
        Map<String, String> found = new TreeMap<>();
        String text = exchange.getRequestURI().getRawQuery();
        for (String pair : text == null ? new String[0] : text.split("&")) {
            String[] parts = pair.split("=", 2);
            found.put(parts[0], URLDecoder.decode(parts[1], StandardCharsets.UTF_8));
        }
        return found;
    }

    private static void reply(HttpExchange exchange, LwM2mResponse response) throws IOException {
        if (response == null) {
            reply(exchange, 504, null, "Request timeout");
            return;
        }
        ObjectNode data = JSON.createObjectNode().put("status", response.getCode().toString());
        data.put("valid", response.isValid()).put("success", response.isSuccess());
        data.put("failure", response.isFailure());
        if (response.getErrorMessage() != null)
            data.put("errormessage", response.getErrorMessage());
        if (response instanceof ObserveCompositeResponse && response.isSuccess())
            data.set("content", of(((ObserveCompositeResponse) response).getContent()));
        else if (response instanceof ReadResponse && response.isSuccess())
            data.set("content", of(((ReadResponse) response).getContent()));
        reply(exchange, data);
    }

    private static void reply(HttpExchange exchange, JsonNode content) throws IOException {
        reply(exchange, 200, "application/json", content.toString());
    }

    private static void reply(HttpExchange exchange, int status, String type, String text) throws IOException {
        byte[] body = text.getBytes(StandardCharsets.UTF_8);
        if (type != null)
            exchange.getResponseHeaders().set("Content-Type", type);
        exchange.sendResponseHeaders(status, body.length);
        try (OutputStream output = exchange.getResponseBody()) {
            output.write(body);
        }
    }

    // The JSON of registrations and nodes

    private ObjectNode of(Registration registration) {
        ObjectNode data = JSON.createObjectNode();
        data.put("endpoint", registration.getEndpoint()).put("registrationId", registration.getId());
        data.put("registrationDate", registration.getRegistrationDate().getTime());
        data.put("lastUpdate", registration.getLastUpdate().getTime());
        data.put("address", registration.getAddress().getHostAddress() + ":" + registration.getPort());
        data.put("lwM2mVersion", registration.getLwM2mVersion().toString());
        data.put("lifetime", registration.getLifeTimeInSec());
        StringBuilder binding = new StringBuilder();
        registration.getBindingMode().forEach(binding::append);
        data.put("bindingMode", binding.toString()).put("rootPath", registration.getRootPath());
        data.set("objectLinks", of(registration.getSortedObjectLinks()));
        data.put("secure", false).put("queuemode", registration.usesQueueMode());
        if (registration.usesQueueMode())
            data.put("sleeping", !leshan.getPresenceService().isClientAwake(registration));
        return data;
    }

    private static ArrayNode of(Link[] links) {
        ArrayNode found = JSON.createArrayNode();
        for (Link link : links) {
            ObjectNode one = found.addObject().put("url", link.getUriReference());
            ObjectNode attributes = one.putObject("attributes");
            for (Attribute attribute : link.getAttributes())
                attributes.put(attribute.getName(), attribute.hasValue() ? attribute.getCoreLinkValue() : null);
        }
        return found;
    }

    private static ObjectNode of(Map<LwM2mPath, LwM2mNode> nodes) {
        ObjectNode found = JSON.createObjectNode();
        nodes.forEach((path, node) -> found.set(path.toString(), node == null ? null : of(node)));
        return found;
    }

    private static ObjectNode of(LwM2mNode node) {
        ObjectNode data = JSON.createObjectNode().put("id", ((LwM2mChildNode) node).getId());
        if (node instanceof LwM2mObject) {
            ArrayNode instances = data.put("kind", "obj").putArray("instances");
            ((LwM2mObject) node).getInstances().values().forEach(one -> instances.add(of(one)));
        } else if (node instanceof LwM2mObjectInstance) {
            ArrayNode resources = data.put("kind", "instance").putArray("resources");
            ((LwM2mObjectInstance) node).getResources().values().forEach(one -> resources.add(of(one)));
        } else if (node instanceof LwM2mResourceInstance) {
            LwM2mResourceInstance instance = (LwM2mResourceInstance) node;
            data.put("kind", "resourceInstance").put("type", instance.getType().toString());
            data.set("value", of(instance.getType(), instance.getValue()));
        } else if (((LwM2mResource) node).isMultiInstances()) {
            LwM2mResource resource = (LwM2mResource) node;
            ObjectNode values = data.put("kind", "multiResource").put("type", resource.getType().toString())
                    .putObject("values");
            resource.getInstances().forEach(
                    (id, one) -> values.set(id.toString(), of(resource.getType(), one.getValue())));
        } else {
            LwM2mResource resource = (LwM2mResource) node;
            data.put("kind", "singleResource").put("type", resource.getType().toString());
            data.set("value", of(resource.getType(), resource.getValue()));
        }
        return data;
    }

    private static JsonNode of(Type type, Object value) {
        switch (type) {
        case BOOLEAN:
            return JSON.getNodeFactory().booleanNode((Boolean) value);
        case TIME:
            return JSON.getNodeFactory().numberNode(((java.util.Date) value).getTime());
        case OPAQUE:
            return JSON.getNodeFactory().textNode(Hex.encodeHexString((byte[]) value));
        default:
            return JSON.getNodeFactory().textNode(value.toString());
        }
    }
}
