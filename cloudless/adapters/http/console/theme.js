// Light or dark: as the system says, unless the person said otherwise here.

const NAME = "cloudless-theme";
const THEMES = ["auto", "light", "dark"];

export function begin(button) {
  let now = THEMES.includes(localStorage.getItem(NAME)) ? localStorage.getItem(NAME) : "auto";
  const show = () => {
    document.documentElement.dataset.theme = now;
    button.textContent = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[now];
    button.setAttribute("aria-label", `Colours: ${now}. Switch`);
    button.title = "Colours: as the system, light, dark";
  };
  button.addEventListener("click", () => {
    now = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    localStorage.setItem(NAME, now);
    show();
  });
  show();
}
