"""Fields of a model: look one up, validate some, list the names of readings."""


def column(model, name):
    return model._meta.get_field(name)


def clean_fields(instance, *names):
    """Run the validators of these fields only, without a query."""
    instance.clean_fields(exclude={f.name for f in instance._meta.fields} - set(names))


def names(reading_model):
    return {f.name for f in reading_model._meta.local_fields} - {"id", "device", "timestamp", "received_at"}
