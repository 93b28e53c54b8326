// Polls the API. Stops while the page is hidden or paused, and polls less often if answers take long, to spare the node.

/** The shortest pause between two rounds, also after a failure, in milliseconds. */
const PAUSE = 2000;
/** The pause after a round, as a multiple of the round's duration: a node with a huge table is asked less often. */
const SHARE = 4;
const LONGEST = 10_000;
/** How long to wait for an answer, in milliseconds. */
const PATIENCE = 15_000;

export class Poller {
  /** `questions()` returns `[path, take(answer)]` for each question of a round. `took` is called after it with its failure or null. */
  constructor({ questions, took }) {
    Object.assign(this, { questions, took, paused: false, timer: null, round: null });
    document.addEventListener('visibilitychange', () => this.now());
  }

  /** Starts a round immediately, for example after a click that needs other answers. */
  now() {
    clearTimeout(this.timer);
    this.round?.abort();
    if (!this.paused && document.visibilityState === 'visible') this.#run();
  }

  /** Pauses or resumes. */
  pause(paused) {
    this.paused = paused;
    this.now();
  }

  async #run() {
    const round = new AbortController();
    this.round = round;
    const begun = performance.now();
    let failure = null;
    await Promise.all(this.questions().map(async ([path, take]) => {
      try {
        take(await ask(path, round.signal));
      } catch (error) {
        failure ??= error;
      }
    }));
    if (round.signal.aborted) return;
    this.took(failure);
    const pause = Math.min(Math.max(PAUSE, SHARE * (performance.now() - begun)), LONGEST);
    this.timer = setTimeout(() => this.now(), pause);
  }
}

/** Returns the answer to a question; null if it is 404 Not Found. */
async function ask(path, signal) {
  let response;
  try {
    response = await fetch(path, { signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]) });
  } catch (error) {
    throw new Error(error.name === 'TimeoutError' ? `no answer within ${PATIENCE / 1000} s` : 'it cannot be reached', { cause: error });
  }
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`it answers ${response.status}`);
  try {
    return await response.json();
  } catch (error) {
    throw new Error('its answer is incomplete', { cause: error });
  }
}
