// Light or dark: as the system says, until the reader chooses.

const CHOICES = ["automatic", "light", "dark"];
const KEY = "pgherd-theme";

// Browsers that keep nothing for this page still switch.
function remembered() {
  try { return localStorage.getItem(KEY); } catch { return null; }
}

function remember(choice) {
  try { localStorage.setItem(KEY, choice); } catch { /* not kept */ }
}

export function startTheme(button) {
  let choice = CHOICES.includes(remembered()) ? remembered() : CHOICES[0];
  const apply = () => {
    document.documentElement.dataset.theme = choice;
    button.textContent = `Theme: ${choice}`;
    button.setAttribute("aria-label", `Theme: ${choice}. Switch to ${next()}.`);
  };
  const next = () => CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
  button.addEventListener("click", () => {
    choice = next();
    remember(choice);
    apply();
  });
  apply();
}
