// Sends the draft to the hub's checker and shows what it says, as text.
"use strict";
const [recipe, plant, button, checking, said] = ["recipe", "plant", "do-check", "checking", "said"].map(id => document.getElementById(id));
button.addEventListener("click", async () => {
  button.disabled = true;
  checking.textContent = "Checking …";
  try {
    const body = JSON.stringify({recipe: recipe.value, plant: plant.value});
    const answer = await fetch("/api/check", {method: "POST", headers: {"Content-Type": "application/json"}, body});
    const found = await answer.json();
    said.textContent = found.text ?? found.error.what;
    said.className = found.ok ? "good" : "bad";
    checking.textContent = found.ok ? "✓ Nothing wrong." : "✗ Something is wrong.";
    said.hidden = false;
  } catch { checking.textContent = "The hub does not answer. Try again."; }
  button.disabled = false;
});
