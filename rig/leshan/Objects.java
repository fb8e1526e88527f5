import org.eclipse.leshan.core.model.ObjectModel;
import org.eclipse.leshan.core.model.ResourceModel;
import org.eclipse.leshan.core.model.ResourceModel.Operations;
import org.eclipse.leshan.core.model.ResourceModel.Type;

/** The objects of the tests that are not among those of the Leshan library. */
class Objects {
    private Objects() {
    }

    /** Return an object with one readable number, 5700; client and server know it. */
    static ObjectModel temperature() {
        return number(3303, "Temperature");
    }

    /** Return the same for humidity, which the server does not know, so that it shows raw bytes. */
    static ObjectModel humidity() {
        return number(3304, "Humidity");
    }

    private static ObjectModel number(int id, String name) {
        ResourceModel value = new ResourceModel(5700, "Value", Operations.R, false, true, Type.FLOAT, "", "", "");
        return new ObjectModel(id, name, "", "1.0", true, false, value);
    }
}
