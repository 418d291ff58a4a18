// Small plots, drawn as SVG; every text is set as text.

const NS = "http://www.w3.org/2000/svg";

export function svg(tag, props = {}, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(props)) made.setAttribute(name, value);
  for (const child of children) made.append(child);
  return made;
}

// A bar: what is used, what is held for what runs, what is free.
export function meter(used, held, limit, level) {
  const share = (part) => (limit > 0 ? Math.max(0, Math.min(1, part / limit)) : 1);
  const u = used > 0 ? Math.max(0.006, share(used)) : 0;
  const all = held > 0 ? Math.min(1, Math.max(u + 0.006, share(used + held))) : u;
  const part = (cls, x, width) => svg("rect", { class: cls, x: `${x * 100}%`, width: `${Math.max(0, width) * 100}%`, y: 0, height: "100%" });
  return svg("svg", { class: `meter ${level || ""}`, role: "img", "aria-label": `${Math.round(share(used + held) * 100)} %` },
    part("free", 0, 1), part("held", u, all - u), part("used", 0, u));
}

export function sparkline(values, width = 240, height = 34) {
  const top = Math.max(1, ...values);
  const x = (i) => (values.length > 1 ? (i * width) / (values.length - 1) : width);
  const y = (v) => height - 1 - (v / top) * (height - 3);
  const line = values.map((v, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  return svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": "the last hour" },
    svg("path", { class: "area", d: `${line}L${width} ${height}L0 ${height}Z` }), svg("path", { class: "line", d: line, "vector-effect": "non-scaling-stroke" }));
}

// Stacked bars by hour, a colour for each agent.
export function hours(plot, pick, format, width = 520, height = 150) {
  const left = 52, bottom = 22, top = 8;
  const count = plot.hours.length;
  const sums = plot.hours.map((_, i) => plot.agents.reduce((sum, agent) => sum + pick(agent)[i], 0));
  const most = nice(Math.max(1, ...sums));
  const step = (width - left) / count;
  const y = (v) => top + (height - top - bottom) * (1 - v / most);
  const root = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const part of [0, 0.5, 1]) {
    root.append(svg("line", { class: part ? "grid" : "axis", x1: left, x2: width, y1: y(most * part), y2: y(most * part) }),
      svg("text", { x: left - 6, y: y(most * part) + 3, "text-anchor": "end" }, format(most * part)));
  }
  plot.hours.forEach((at, i) => {
    const hour = svg("g", { class: "hour" });
    const label = clockOf(at);
    hour.append(svg("rect", { class: "hover", x: left + i * step, width: step, y: top, height: height - top - bottom }));
    let below = 0;
    const lines = [];
    plot.agents.forEach((agent, n) => {
      const value = pick(agent)[i];
      if (!value) return;
      const h = Math.max(1, y(below) - y(below + value));
      hour.append(svg("rect", { class: `s${Math.min(n, 8)}`, x: left + i * step + 1.5, width: step - 3, y: y(below) - h, height: h, rx: 1 }));
      below += value;
      lines.push(`${agent.agent} ${format(value)}`);
    });
    hour.append(svg("title", {}, `${label} UTC  ${lines.join(", ") || "nothing"}`));
    if (i % 6 === count % 6 || i === count - 1) hour.append(svg("text", { x: left + (i + 0.5) * step, y: height - 5, "text-anchor": i === count - 1 ? "end" : i ? "middle" : "start" }, label));
    root.append(hour);
  });
  root.setAttribute("aria-label", "by hour and agent");
  return root;
}

// The attempts of a task from its submission to its end, to scale.
export function attempts(page, now, width = 760) {
  const row = 22, left = 70, height = 24 + row * Math.max(1, page.attempts.length);
  const from = page.submitted_at, to = Math.max(from + 1, page.ended_at || now);
  const x = (at) => left + ((Math.min(at, to) - from) / (to - from)) * (width - left - 8);
  const root = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "attempts, to scale" });
  const ends = [["submitted", from, "start"], [page.ended_at ? "ended" : "now", to, "end"]];
  for (const [name, at, anchor] of ends) {
    root.append(svg("line", { class: "grid", x1: x(at), x2: x(at), y1: 14, y2: height }), svg("text", { x: x(at), y: 10, "text-anchor": anchor }, `${name} ${clockOf(at, true)}`));
  }
  page.attempts.forEach((each, n) => {
    const y = 18 + n * row, end = each.ended_at || to, start = each.started_at || each.dispatched_at;
    const color = { completed: "s4", failed: "s2", cancelled: "s8", requeued: "s6" }[each.outcome] || "s0";
    root.append(svg("text", { x: 0, y: y + 12 }, `attempt ${each.attempt}`),
      svg("rect", { class: "s8", x: x(each.dispatched_at), width: Math.max(1, x(start) - x(each.dispatched_at)), y: y + 5, height: 6 }),
      svg("rect", { class: color, x: x(start), width: Math.max(3, x(end) - x(start)), y: y + 1, height: 14, rx: 3 }, svg("title", {}, `${each.worker} ${each.outcome || "running"}`)));
  });
  return root;
}

export function clockOf(micros, seconds = false) {
  return new Date(micros / 1000).toISOString().slice(11, seconds ? 19 : 16);
}

function nice(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 2.5, 5, 10]) if (step * size >= value) return step * size;
  return value;
}
