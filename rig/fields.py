"""Fields of a model: get one, validate some, list the names of readings."""


def column(model, name):
    """Return the field *name* of *model*."""
    return model._meta.get_field(name)


def clean_fields(instance, *names):
    """Validate the fields *names* of *instance* only, without a query."""
    instance.clean_fields(exclude={f.name for f in instance._meta.fields} - set(names))


def names(reading_model):
    """Return the names of the declared readings of *reading_model*."""
    return {f.name for f in reading_model._meta.local_fields} - {"id", "device", "timestamp", "received_at"}
