// Start the page; if a part of it did not arrive (the network changed, the server went), load it all again a few times.

const NAME = "cloudless-boot";
const TRIES_MAX = 6;
const PAUSE_MS = 700;
const ARRIVE_MAX_MS = 10_000;

function again(reason) {
  const tries = Number(sessionStorage.getItem(NAME) ?? 0) + 1;
  sessionStorage.setItem(NAME, String(tries));
  const text = document.getElementById("link-text");
  if (tries <= TRIES_MAX) {
    text.textContent = "A part of the page did not arrive; loading it again";
    setTimeout(() => location.reload(), PAUSE_MS * tries);
  } else {
    sessionStorage.removeItem(NAME);
    text.textContent = `The page could not be loaded: ${reason}`;
  }
}

const waiting = setTimeout(() => again("it did not arrive in time"), ARRIVE_MAX_MS);
try {
  await import("./main.js");
  sessionStorage.removeItem(NAME);
} catch (error) {
  again(error.message);
} finally {
  clearTimeout(waiting);
}
