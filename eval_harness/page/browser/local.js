if (location.protocol === "file:") {
  const status = document.getElementById("status");
  status.setAttribute("role", "alert");
  status.textContent = "Opened as a file, the page can't load the model: browsers let only served pages do that. " +
    "In this folder run: python -m http.server --bind 127.0.0.1, and open http://127.0.0.1:8000/";
}
