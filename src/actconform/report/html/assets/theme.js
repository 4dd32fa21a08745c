// The theme: that of the system until a reader chooses.

const dark = () =>
  (document.documentElement.dataset.theme ||
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function turn() {
  const theme = dark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("actconform-theme", theme);
  } catch {
    // a page from disk may have no storage: the choice holds until it is closed
  }
  nameTheme();
}

function nameTheme() {
  document.getElementById("theme").textContent = dark() ? "Light" : "Dark";
  document.getElementById("theme").setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} theme`);
}

try {
  const storedTheme = localStorage.getItem("actconform-theme");
  if (storedTheme) document.documentElement.dataset.theme = storedTheme;
} catch {
  // as above
}
