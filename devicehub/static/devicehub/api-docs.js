// The description of the API, drawn by Swagger UI. Requests that are tried here carry the session and its CSRF token.
const place = document.getElementById("api");
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

// Swagger UI has its own class for a dark page.
function follow() {
  const theme = root.dataset.theme || (dark.matches ? "dark" : "light");
  root.classList.toggle("dark-mode", theme === "dark");
}
follow();
dark.addEventListener("change", follow);
new MutationObserver(follow).observe(root, { attributeFilter: ["data-theme"] });

window.SwaggerUIBundle({
  url: place.dataset.schema,
  domNode: place,
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  tagsSorter: "alpha",
  validatorUrl: null,
  requestInterceptor: (request) => {
    const isOwn = new URL(request.url, location.href).origin === location.origin;
    const changes = !["GET", "HEAD"].includes((request.method || "GET").toUpperCase());
    if (isOwn && changes) request.headers["X-CSRFToken"] = place.dataset.csrf;
    return request;
  },
});
