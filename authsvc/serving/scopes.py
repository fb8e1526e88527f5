"""Names that the ASGI entrance and the worker class share: keys of a scope, and headers of answers."""

PREFIX = "/mqtt/"  # The prefix of the paths of questions.
CALLER_IS_ADMITTED = (
    "authsvc.caller_is_admitted"  # Set with the answer to a question: True if its token was valid.
)

# Headers of every answer that is not for a broker. They keep browsers from running it or guessing its type.
PROTECTED = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
)
