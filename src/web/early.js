// What comes before the modules: the colours, and a word when a module does not arrive.
'use strict';

// As the system has them, or as was chosen here: sets `data-theme` to `light` or `dark` before the first paint.
(() => {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const root = document.documentElement;

  // Storage may be forbidden; then the choice lasts as long as the page.
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
        // See above.
      }
      apply();
      show();
    });
    show();
  });
})();

// A file that was lost on the way leaves the page empty; it is there again with the next try, or the one after that.
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
