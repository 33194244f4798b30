// Displays openapi.json. All text is inserted as text, never as markup.

const byId = (id) => document.getElementById(id);
let description;

/** An element with its attributes and children. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Text with `code` and **strong** parts. */
function words(text = "") {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith("`")) return element("code", {}, part.slice(1, -1));
    if (part.startsWith("**")) return element("strong", {}, part.slice(2, -2));
    return part;
  });
}

/** The target of a reference, or the object. */
function follow(it) {
  if (!it.$ref) return it;
  const steps = it.$ref.slice(2).split("/");
  return follow(steps.reduce((at, step) => at[step.replaceAll("~1", "/").replaceAll("~0", "~")], description));
}

/** A schema without `null`, and the names on the way. */
function shape(schema, names) {
  if (schema.$ref) return shape(follow(schema), names.add(schema.$ref));
  return schema.oneOf && !schema.properties ? shape(schema.oneOf[0], names) : schema;
}

/** The type of a schema in words. */
function kind(schema) {
  const it = follow(schema);
  if (it.enum) return it.enum.filter((value) => typeof value === "string" && !/^\d+$/.test(value)).map((value) => `\`${value}\``).join(", ");
  if (it.const !== undefined) return `\`${it.const}\``;
  if (it.oneOf && !it.type) return [...new Set(it.oneOf.map(kind))].filter((one) => one !== "null").join(" or ");
  if (it.format === "date-time") return "time";
  const names = { string: "text", integer: "number", boolean: "`true` or `false`", array: "list" };
  const type = [it.type].flat()[0];
  return names[type] ?? type;
}

/** The fields of an object and nested ones, as terms and descriptions. Recursive schemas are listed once. */
function fields(schema, prefix = "", around = new Set()) {
  const names = new Set();
  const it = shape(schema, names);
  if ([...names].some((name) => around.has(name))) return [];
  const inside = new Set([...around, ...names]);
  if (it.items) return fields(it.items, `${prefix}[]`, inside);
  return Object.entries(it.properties ?? {}).flatMap(([name, member]) => {
    const type = kind(member);
    if (type === "null") return [];
    const path = prefix ? `${prefix}.${name}` : name;
    const needed = it.required?.includes(name) ? ", required" : "";
    const said = member.description ?? shape(member, new Set()).description ?? "";
    return [
      element("dt", {}, element("code", {}, path), " ", element("span", { class: "soft" }, ...words(said ? type + needed : ""))),
      element("dd", {}, ...words(said || type + needed)),
      ...fields(member, path, inside),
    ];
  });
}

function list(entries) {
  return entries.length ? [element("dl", {}, ...entries)] : [];
}

/** An example, scrollable by keyboard. */
function example(value, label) {
  const text = typeof value === "string" && label === "text" ? value : JSON.stringify(value, null, 2);
  return element("pre", { tabindex: "0" }, text);
}

function parameters(call) {
  const all = (call.parameters ?? []).map(follow);
  if (!all.length) return [];
  const entries = all.flatMap((it) => [
    element("dt", {}, element("code", {}, it.name), " ", element("span", { class: "soft" }, ...words(`${it.in}, ${kind(it.schema)}`))),
    element("dd", {}, ...words(it.description)),
  ]);
  return [element("h4", {}, "Parameters"), ...list(entries)];
}

function body(call) {
  const it = call.requestBody;
  if (!it) return [];
  const { schema, examples } = it.content["application/json"];
  return [
    element("h4", {}, it.required ? "Body" : "Body, optional"),
    element("p", {}, ...words(`A ${kind(schema)}. ${it.description ?? follow(schema).description ?? ""}`.replace("A object", "An object"))),
    ...list(fields(schema)),
    ...Object.values(examples).map((one) => example(one.value)),
  ];
}

/** The ids of the refusals that a schema allows, and their meaning. */
function refusals(status, schema) {
  if (schema.oneOf) return schema.oneOf.flatMap((one) => refusals(status, one));
  const it = follow(schema);
  const id = it.allOf[1].properties.details?.items.properties.id.const;
  return [
    element("dt", {}, element("code", {}, status), ...(id ? [" ", element("code", {}, id)] : [])),
    element("dd", {}, ...words(it.description)),
  ];
}

function answers(call) {
  const shown = [];
  const refused = [];
  for (const [status, one] of Object.entries(call.responses)) {
    const response = follow(one);
    const [[media, content]] = Object.entries(response.content);
    if (status >= "400") {
      refused.push(...refusals(status, content.schema));
      continue;
    }
    shown.push(element("h4", {}, `Answer ${status}`), element("p", {}, ...words(response.description)));
    if (media === "application/json") shown.push(...list(fields(content.schema, "", new Set(["#/components/schemas/Details"]))));
    if (content.example !== undefined) shown.push(example(content.example, media.startsWith("text/") ? "text" : ""));
  }
  const more = element("details", {}, element("summary", {}, "Refusals"), element("dl", {}, ...refused));
  return [...shown, more];
}

function article(path, method, call) {
  const rights = call["x-roles"] ? `Roles: ${call["x-roles"].join(", ")}.` : "It needs no token.";
  return element(
    "article",
    { id: call.operationId, "data-words": `${call.summary} ${method} ${path} ${call.operationId}`.toLowerCase() },
    element("h3", {}, call.summary),
    element("p", { class: "route" }, element("span", { class: "method" }, method.toUpperCase()), element("code", {}, path)),
    element("p", {}, ...words(call.description)),
    element("p", { class: "soft" }, rights),
    ...parameters(call),
    ...body(call),
    ...answers(call),
  );
}

function show() {
  const { info, tags, paths } = description;
  byId("about").append(element("p", {}, ...words(info.description)), element("p", { class: "soft" }, `Version ${info.version}. `, element("a", { href: "openapi.json" }, "openapi.json")));
  const calls = Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, call]) => ({ path, method, call })));
  for (const { name, description: said } of tags) {
    const own = calls.filter(({ call }) => call.tags.includes(name));
    const links = own.map(({ call }) => element("li", {}, element("a", { href: `#${call.operationId}` }, call.summary)));
    byId("index").append(element("section", {}, element("h2", {}, name), element("ul", {}, ...links)));
    const articles = own.map(({ path, method, call }) => article(path, method, call));
    byId("calls").append(element("section", {}, element("h2", {}, name), element("p", { class: "soft" }, ...words(said)), ...articles));
  }
}

/** Hides the calls without the text, in the list and on the page. */
function find() {
  const wanted = byId("find").value.trim().toLowerCase();
  let count = 0;
  for (const one of document.querySelectorAll("article")) {
    one.hidden = !one.dataset.words.includes(wanted);
    count += one.hidden ? 0 : 1;
    document.querySelector(`#index a[href="#${one.id}"]`).parentElement.hidden = one.hidden;
  }
  for (const section of document.querySelectorAll("section")) section.hidden = !section.querySelector("article:not([hidden]), li:not([hidden])");
  byId("state").textContent = wanted ? `${count} of ${document.querySelectorAll("article").length} calls` : "";
}

async function start() {
  try {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    description = await answer.json();
  } catch (why) {
    byId("state").textContent = `The description could not be read (${why.message}). Load the page again when the server is there.`;
    return;
  }
  show();
  byId("state").textContent = "";
  byId("find").addEventListener("input", find);
  byId("menu").open = matchMedia("(min-width: 60rem)").matches;
  // The part in the address did not exist yet when the page was opened.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

start();
