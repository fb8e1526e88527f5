// Relative times in the words of display.ago() on the server, updated every second.
export function ago(seconds) {
  if (seconds < 2) return "just now";
  for (const [size, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${name} ago`;
  }
  return `${Math.floor(seconds)} s ago`;
}

export function tickTimes(now) {
  for (const time of document.querySelectorAll("time:not(.exact)")) {
    const text = ago(now - Date.parse(time.dateTime) / 1000);
    if (time.textContent !== text) time.textContent = text;
  }
}
