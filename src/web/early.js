// Runs before the modules: sets the colours, and shows a message if a script cannot be loaded.
'use strict';

// The colours of the system, or those chosen here: sets `data-theme` to `light` or `dark` before the first paint.
(() => {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const root = document.documentElement;

  // Storage may be forbidden. Then the choice lasts until the page is closed.
  function stored() {
    try {
      return localStorage.getItem('theme');
    } catch {
      return null;
    }
  }

  function apply() {
    const choice = root.dataset.choice;
    root.dataset.theme = choice === 'auto' ? (system.matches ? 'dark' : 'light') : choice;
  }

  const before = stored();
  root.dataset.choice = before === 'light' || before === 'dark' ? before : 'auto';
  apply();
  system.addEventListener('change', apply);

  document.addEventListener('DOMContentLoaded', () => {
    const button = document.getElementById('theme');
    const label = button.firstElementChild;
    const names = { auto: 'Auto', light: 'Light', dark: 'Dark' };
    const show = () => {
      label.textContent = names[root.dataset.choice];
      button.setAttribute('aria-label', `Colours: ${names[root.dataset.choice]}`);
    };
    button.addEventListener('click', () => {
      root.dataset.choice = { auto: 'light', light: 'dark', dark: 'auto' }[root.dataset.choice];
      try {
        localStorage.setItem('theme', root.dataset.choice);
      } catch {
        // Storage is forbidden, see above.
      }
      apply();
      show();
    });
    show();
  });
})();

// If a script cannot be loaded, the page stays empty. It is reloaded until all scripts arrive.
addEventListener(
  'error',
  (event) => {
    if (event.target instanceof HTMLScriptElement) {
      document.querySelector('main').textContent = 'The page could not be loaded whole. Trying again…';
      setTimeout(() => location.reload(), 2000);
    }
  },
  true,
);
