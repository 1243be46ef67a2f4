/**
 * How the pages of msgbus look, in light and in dark.
 *
 * @module
 */

const look = new CSSStyleSheet();
look.replaceSync(`
  :root {
    --back: #f6f7f9;
    --card: #fff;
    --ink: #1b1f24;
    --faint: #5b6570;
    --line: #d9dee4;
    --edge: #7d8894;
    --accent: #0a5fb8;
    --good: #177a3b;
    --bad: #b3261e;
  }
  @media (prefers-color-scheme: dark) {
    :root {
      --back: #14171b;
      --card: #1e2329;
      --ink: #e6e9ed;
      --faint: #9aa5b1;
      --line: #343b44;
      --edge: #74808d;
      --accent: #7bb8ff;
      --good: #6cd391;
      --bad: #ff9c94;
    }
  }
  * { box-sizing: border-box; }
  [hidden] { display: none !important; }
  body {
    display: flex;
    flex-direction: column;
    height: 100vh;
    height: 100dvh;
    margin: 0;
    background: var(--back);
    color: var(--ink);
    font: 1rem/1.45 system-ui, sans-serif;
  }
  main { display: contents; }
  body > *, main > * { flex: none; padding: 0.6rem max(1rem, calc(50vw - 30rem)); }
  body > header {
    display: flex;
    flex-wrap: wrap;
    gap: 0.4rem 1rem;
    align-items: center;
    border-bottom: 1px solid var(--line);
    background: var(--card);
  }
  h1 { flex: 1 1 auto; margin: 0; font-size: 1.15rem; overflow-wrap: anywhere; }
  a { color: var(--accent); }
  input, textarea, button { font: inherit; color: inherit; }
  input, textarea { width: 100%; min-width: 0; }
  input:not([type="file"]), textarea {
    padding: 0.35rem 0.5rem;
    background: var(--card);
    border: 1px solid var(--edge);
    border-radius: 0.4rem;
  }
  :disabled { color: var(--faint); background: var(--back) !important; }
  ::placeholder { color: var(--faint); opacity: 1; }
  button {
    max-width: 100%;
    padding: 0.35rem 0.9rem;
    background: var(--card);
    border: 1px solid var(--edge);
    border-radius: 0.4rem;
    overflow-wrap: anywhere;
    cursor: pointer;
  }
  button.main { background: var(--accent); border-color: var(--accent); color: var(--back); }
  :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
  #state { max-width: 100%; overflow-wrap: anywhere; }
  #state::before { content: "● "; color: var(--faint); }
  #state[data-state="open"]::before { color: var(--good); }
  [data-state="lost"], [data-state="closed"], [data-state="lost"]::before,
  [data-state="closed"]::before {
    color: var(--bad) !important;
  }
  .skip:not(:focus) { position: absolute; left: -99rem; }
  form { border-top: 1px solid var(--line); background: var(--card); }

  /* A page that is scrolled as a whole. */
  body.scrolled { height: auto; min-height: 100vh; min-height: 100dvh; }
  .slash { margin: 0 0.25rem; color: var(--faint); }
  .note { margin: 0; color: var(--faint); }

  table { width: 100%; margin: 0.4rem 0; border-collapse: collapse; }
  th { font-size: 0.85rem; font-weight: 400; color: var(--faint); }
  th, td { padding: 0.4rem 0.6rem; text-align: start; vertical-align: top; }
  th:first-child, td:first-child { padding-left: 0; }
  th:last-child, td:last-child { padding-right: 0; }
  td { border-top: 1px solid var(--line); overflow-wrap: anywhere; }
  th.number { width: 5rem; }
  th:last-child { width: 8rem; }
  td.number, th.number { text-align: end; overflow-wrap: normal; }
  td .folder { color: var(--faint); }
  td .type { display: block; font-size: 0.85rem; color: var(--faint); }
  .pager { display: flex; gap: 0.8rem; align-items: center; }

  .log { flex: 1; min-height: 4rem; overflow-y: auto; overflow-anchor: none; }
  body.scrolled .log { flex: none; max-height: 20rem; }
  .log:focus-visible { outline-offset: -2px; }
  body:has([data-state="open"]) .log:empty::after {
    content: "Nothing to show yet.";
    color: var(--faint);
  }
  .log > article {
    margin-bottom: 0.6rem;
    padding: 0.5rem 0.8rem 0.7rem;
    background: var(--card);
    border: 1px solid var(--line);
    border-radius: 0.6rem;
  }
  .log > .note { margin: 0 0 0.6rem; color: var(--faint); text-align: center; }
  .log > .live { position: relative; margin-top: 2rem; }
  .log > .live::before {
    position: absolute;
    inset: -1.5rem 0 auto;
    color: var(--faint);
    font-size: 0.85rem;
    text-align: center;
    content: "New from here";
  }
  article header {
    display: flex;
    flex-wrap: wrap;
    gap: 0 0.8rem;
    margin-bottom: 0.3rem;
    font-size: 0.85rem;
    color: var(--faint);
  }
  article header > * { max-height: 3em; overflow: hidden; overflow-wrap: anywhere; }
  .headers { font-size: 0.85rem; }
  .headers dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1em; margin: 0.25em 0; }
  .headers dd { margin: 0; overflow-wrap: anywhere; }
  .sender { font-weight: 600; color: var(--ink); }
  .nobody { font-style: italic; }
  pre {
    max-height: 24rem;
    margin: 0;
    overflow: auto;
    text-align: start;
    white-space: pre-wrap;
    overflow-wrap: anywhere;
    font: 0.95rem/1.4 ui-monospace, monospace;
  }
  img { display: block; max-width: 100%; max-height: 28rem; border-radius: 0.3rem; }
  iframe {
    display: block;
    width: 100%;
    height: 9rem;
    overflow: auto;
    resize: vertical;
    border: 1px solid var(--line);
    border-radius: 0.3rem;
    background: #fff;
    color-scheme: light;
  }
`);
document.adoptedStyleSheets.push(look);

// So that it is a module to whoever reads it alone.
export {};
