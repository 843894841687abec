// Figures as people read them.

export function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${shown(value * 1e3)} ms`;
  if (value < 120) return `${shown(value)} s`;
  if (value < 7200) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
}

export function bytes(value) {
  return value < 1 << 20 ? `${Math.round(value / 1024)} KiB` : `${shown(value / (1 << 20))} MiB`;
}

export function count(value) {
  return value === null || value === undefined ? "" : value.toLocaleString("en");
}

export function rate(value) {
  return value === null ? "" : count(value < 10 ? Math.round(value * 10) / 10 : Math.round(value));
}

function shown(value) {
  return value < 10 ? value.toFixed(1) : String(Math.round(value));
}
