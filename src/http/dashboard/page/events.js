// The stream of snapshots: connects, notices silence, connects again. Read with fetch, for EventSource does not say
// why it was refused.

const SILENCE_MS = 5000; // a snapshot comes each second
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 5000;
const ENDED = "the proxy ended the connection";

// Calls `onEvent(name, data)` for each event, `onLost(why)` each time there is no contact. Never ends.
export async function follow(url, { onEvent, onLost }) {
  let pause = FIRST_PAUSE_MS;
  for (;;) {
    let heard = false;
    const why = await read(url, (name, data) => {
      heard = true;
      pause = FIRST_PAUSE_MS;
      onEvent(name, data);
    });
    // The proxy also ends a stream in good order, when its configuration has changed: ask again before complaining.
    if (heard && why === ENDED) continue;
    onLost(why);
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 1.5, LONGEST_PAUSE_MS);
  }
}

// Reads one stream to its end; why it ended.
async function read(url, onEvent) {
  const abort = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), SILENCE_MS);
  };
  heard();
  try {
    const answer = await fetch(url, { signal: abort.signal, cache: "no-store", headers: { accept: "text/event-stream" } });
    if (!answer.ok) return await refusal(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return ENDED;
      heard();
      buffer += value;
      for (let end = buffer.indexOf("\n\n"); end >= 0; end = buffer.indexOf("\n\n")) {
        dispatch(buffer.slice(0, end), onEvent);
        buffer = buffer.slice(end + 2);
      }
    }
  } catch (error) {
    return abort.signal.aborted ? "the proxy has fallen silent" : "the proxy does not answer";
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

async function refusal(answer) {
  try {
    const { message, hint } = await answer.json();
    return [message, hint].filter(Boolean).join(". ");
  } catch {
    return `the proxy answers with HTTP ${answer.status}`;
  }
}

function dispatch(block, onEvent) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (data.length > 0) onEvent(name, JSON.parse(data.join("\n")));
}
