// Server-sent events over fetch: unlike EventSource it can send a token in a header, and it leaves
// nothing for another site to use. Goes on where it was cut off (Last-Event-ID).

const AGAIN_MS = [500, 1000, 2000, 4000, 8000];
const SILENT_MS = 25000;

export class Stream {
  #last = ""; #tries = 0; #stopped = false; #abort = null;

  constructor(url, headers, onScene, onState) {
    Object.assign(this, { url, headers, onScene, onState });
  }

  start() { this.#run(); return this; }

  stop() { this.#stopped = true; this.#abort?.abort(); }

  async #run() {
    while (!this.#stopped) {
      try {
        await this.#read();
      } catch (error) {
        if (this.#stopped) return;
        this.onState("away", error.status === 401 ? "token" : String(error.message || error));
      }
      if (this.#stopped) return;
      const pause = AGAIN_MS[Math.min(this.#tries++, AGAIN_MS.length - 1)];
      await new Promise((done) => setTimeout(done, pause));
    }
  }

  async #read() {
    this.#abort = new AbortController();
    const headers = { ...this.headers(), Accept: "text/event-stream" };
    if (this.#last) headers["Last-Event-ID"] = this.#last;
    let watchdog = setTimeout(() => this.#abort.abort(), SILENT_MS);
    try {
      const reply = await fetch(this.url, { headers, signal: this.#abort.signal, cache: "no-store" });
      if (!reply.ok) throw Object.assign(new Error(`the page answered ${reply.status}`), { status: reply.status });
      const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) throw new Error("the page went away");
        clearTimeout(watchdog);
        watchdog = setTimeout(() => this.#abort.abort(), SILENT_MS);
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) this.#take(part);
      }
    } finally {
      clearTimeout(watchdog);
    }
  }

  #take(part) {
    const fields = {};
    for (const line of part.split("\n")) {
      const at = line.indexOf(": ");
      if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
    }
    if (!fields.data) return;
    const resumed = this.#tries > 0;
    this.#tries = 0;
    if (fields.id) this.#last = fields.id;
    this.onScene(JSON.parse(fields.data), resumed);
    this.onState("live", "");
  }
}
