const about = JSON.parse(document.getElementById("data").textContent);
const status = document.getElementById("status");
const form = document.getElementById("try");
const button = form.querySelector("button");
const boxes = [...form.querySelectorAll("textarea")];
const special = new Set(about.special);
let tokenizer, model;

function fail(message) {
  status.setAttribute("role", "alert");
  status.textContent = message;
  document.body.dataset.failed = message;
}

function softmax(values) {
  const top = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - top));
  const sum = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / sum);
}

function best(shares) {
  let place = 0;
  shares.forEach((share, index) => { if (share > shares[place]) place = index });
  return place;
}

function rows(tensor) {
  const width = tensor.dims.at(-1);
  const values = Array.from(tensor.data, Number);
  return Array.from({ length: values.length / width }, (_, row) => values.slice(row * width, (row + 1) * width));
}

const decoded = (ids) => tokenizer.decode(ids, { skip_special_tokens: false }).trim();

function entities(ids, labels) {
  const found = [];
  let open = null;
  labels.forEach((label, index) => {
    const name = label === "O" ? "" : label.replace(/^[BI]-/, "");
    if (!open || name !== open.name || label.startsWith("B-")) {
      open = name ? { name, ids: [] } : null;
      if (open) found.push(open);
    }
    if (open) open.ids.push(ids[index]);
  });
  return found.map((each) => `${decoded(each.ids)}: ${each.name}`).join("; ");
}

function span(ids, output, first) {
  const [starts, ends] = [output.start_logits, output.end_logits].map((tensor) => softmax(Array.from(tensor.data, Number)));
  const allowed = ids.map((_, place) => place).filter((place) => place >= first && !special.has(ids[place]));
  let found = { share: -1, start: 0, end: 0 };
  for (const start of allowed) {
    for (const end of allowed) {
      const share = starts[start] * ends[end];
      if (start <= end && end < start + about.longest_answer && share > found.share) found = { share, start, end };
    }
  }
  return { text: decoded(ids.slice(found.start, found.end + 1)), key: [found.start, found.end], probability: Math.max(found.share, 0) };
}

function read(ids, output, first) {
  if (about.head === "span") return span(ids, output, first);
  const logits = rows(output.logits);
  if (about.head === "number") {
    return { text: logits[0][0].toFixed(2), key: [Math.round(logits[0][0] * 10)], probability: null };
  }
  if (about.head === "classes") {
    const shares = softmax(logits[0]);
    const place = best(shares);
    return { text: about.labels[place], key: [place], probability: shares[place] };
  }
  const isAsked = (id) => about.head === "mask" ? id === about.mask_id : !special.has(id);
  const places = ids.map((_, place) => place).filter((place) => isAsked(ids[place]));
  const shares = places.map((place) => softmax(logits[place]));
  const key = shares.map(best);
  const probability = Math.min(1, ...shares.map((each, index) => each[key[index]]));
  const text = about.head === "mask"
    ? key.map((id) => decoded([id])).join(", ")
    : entities(places.map((place) => ids[place]), key.map((number) => about.labels[number]));
  return { text: text || "none", key, probability };
}

async function answer(texts) {
  const [text, pair = null] = texts;
  const inputs = tokenizer(text, { text_pair: pair, return_token_type_ids: true });
  const ids = Array.from(inputs.input_ids.data, Number);
  if (ids.length > about.max_tokens) throw new Error(`${ids.length} tokens: the model reads ${about.max_tokens}; shorten the text`);
  if (about.head === "mask" && !ids.includes(about.mask_id)) throw new Error(`write ${about.mask} where a word is to be filled in`);
  const first = about.head === "span" ? tokenizer(text, { return_tensor: false }).input_ids.length : 0;
  return read(ids, await model(inputs), first);
}

async function timed(texts) {
  const began = performance.now();
  const found = await answer(texts);
  return { ...found, ms: performance.now() - began };
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const percent = (share) => share === null ? "" : `${(100 * share).toFixed(1)} %`;
const milliseconds = (ms) => ms < 10 ? ms.toFixed(2) : ms.toFixed(0);

async function answerExamples() {
  let same = 0;
  const lines = [...document.querySelectorAll("#examples tbody tr")];
  for (const [index, example] of about.examples.entries()) {
    const found = await answer(example.texts);
    const isSame = JSON.stringify(found.key) === JSON.stringify(example.key);
    same += isSame;
    const [here, mark] = [...lines[index].children].slice(-2);
    here.textContent = found.text;
    if (found.probability !== null) {
      const share = document.createElement("span");
      share.className = "probability";
      share.textContent = ` ${percent(found.probability)}`;
      here.append(share);
    }
    mark.textContent = isSame ? "yes" : "no";
    lines[index].dataset.probability = found.probability;
    lines[index].dataset.key = JSON.stringify(found.key);
  }
  return same;
}

async function measure() {
  const times = [];
  for (let run = 0; run < 3; run++) {
    for (const example of about.examples) times.push((await timed(example.texts)).ms);
  }
  return median(times);
}

async function load() {
  const { env, AutoModel, AutoTokenizer } = await import("transformers");
  const here = (name) => new URL(`lib/${name}`, document.baseURI).href;
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = "./"; // below a whole URL it looks for no tokenizer
  env.useBrowserCache = false;
  env.useWasmCache = false;
  env.backends.onnx.wasm.wasmPaths = { mjs: here("ort-wasm-simd-threaded.mjs"), wasm: here("ort-wasm-simd-threaded.wasm") };
  const threads = self.crossOriginIsolated ? Math.min(4, Math.ceil((navigator.hardwareConcurrency || 1) / 2)) : 1;
  env.backends.onnx.wasm.numThreads = threads;
  tokenizer = await AutoTokenizer.from_pretrained("model");
  model = await AutoModel.from_pretrained("model", { dtype: "q8", device: "wasm" });
  return threads;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const place = document.getElementById("answer");
  button.disabled = true;
  try {
    const texts = boxes.map((box) => box.value);
    const runs = [];
    for (let run = 0; run < 4; run++) runs.push(await timed(texts));
    const strong = document.createElement("strong");
    strong.textContent = runs[0].text;
    const ms = milliseconds(median(runs.slice(1).map((each) => each.ms)));
    place.replaceChildren(strong, [percent(runs[0].probability), `${ms} ms`].filter(Boolean).join(", "));
  } catch (error) {
    place.textContent = error.message;
  }
  button.disabled = false;
});

try {
  const threads = await load();
  status.textContent = "Answering the examples …";
  const same = await answerExamples();
  const ms = await measure();
  const count = about.examples.length;
  const on = `${threads} thread${threads > 1 ? "s" : ""}`;
  status.textContent = `Ready: ${milliseconds(ms)} ms a text here (median of three runs of ${count} texts, one at a time, ${on}).`;
  document.getElementById("agreement").textContent = `${same} of ${count} answers are the same.`;
  button.disabled = false;
  Object.assign(document.body.dataset, { same, count, ms: ms.toFixed(3), threads, done: "yes" });
} catch (error) {
  // Of a file the page has said already that it must be served, which is why nothing loads.
  if (location.protocol !== "file:") fail(`The model can't be run here: ${error.message}`);
}
