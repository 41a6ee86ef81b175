/** Load a dashboard's JSON: its time range, the values of its variables, and its panels. */
import { dateMath, dateTime, rangeUtil, type DateTime, type TimeRange } from '@grafana/data';
import type { Dashboard, Panel, RowPanel, VariableModel } from '@grafana/schema';

import { labelValues } from './prometheus';

/** Settings from `draw.mjs`. */
export interface Settings {
  dashboard: Dashboard;
  theme: 'dark' | 'light';
  width: number;
  /** Seconds between two scrapes. */
  step: number;
  from?: string;
  to?: string;
  /** Values of variables, by name. */
  choices: Record<string, string[]>;
}

/** A variable, with its value in queries and its displayed value. */
export interface Variable {
  name: string;
  label: string;
  queried: string;
  displayed: string;
}

export interface Page {
  title: string;
  range: TimeRange;
  variables: Variable[];
  panels: Array<Panel | RowPanel>;
}

export async function load({ dashboard, from, to, choices }: Settings): Promise<Page> {
  const range = timeRange(from ?? dashboard.time?.from, to ?? dashboard.time?.to);
  const variables: Variable[] = [];
  // In order: the query of a variable may contain earlier variables.
  for (const model of dashboard.templating?.list ?? []) {
    if (model.type !== 'datasource') {
      variables.push(
        await variable(model, range, byName(variables, 'queried'), choices[model.name]),
      );
    }
  }
  return { title: dashboard.title ?? '', range, variables, panels: dashboard.panels ?? [] };
}

export function byName(
  variables: Variable[],
  what: 'queried' | 'displayed',
): Record<string, string> {
  return Object.fromEntries(variables.map((each) => [each.name, each[what]]));
}

/** Replace `$name`, `${name}` and `${name:format}` with values. */
export function fill(text: string, values: Record<string, string>): string {
  const name = /\$(\w+)|\$\{(\w+)(?::\w+)?\}/g;
  return text.replace(name, (whole, bare, braced) => values[bare ?? braced] ?? whole);
}

function timeRange(from = 'now-6h', to = 'now'): TimeRange {
  return { from: parseTime(from, false), to: parseTime(to, true), raw: { from, to } };
}

/** Parse an ISO time, seconds or milliseconds since the epoch, or a time like `now-6h`. */
function parseTime(text: string, roundUp: boolean): DateTime {
  if (/^\d+(\.\d+)?$/.test(text)) {
    const number = Number(text);
    return dateTime(number < 1e11 ? number * 1000 : number);
  }
  const found = dateMath.toDateTime(text, { roundUp });
  if (!found?.isValid()) {
    throw new Error(`not a time: ${text}`);
  }
  return found;
}

async function variable(
  model: VariableModel,
  range: TimeRange,
  before: Record<string, string>,
  choice?: string[],
): Promise<Variable> {
  const { name } = model;
  const label = model.label || name;
  const values = choice ?? (await current(model, range, before));
  if (values.includes('$__all')) {
    return { name, label, queried: model.allValue || '.*', displayed: 'All' };
  }
  // Like Grafana's Prometheus data source: several values become a regular expression.
  const severalAllowed = model.multi || model.includeAll;
  const escaped = severalAllowed ? values.map(escape) : values;
  const queried = escaped.length === 1 ? escaped[0] : `(${escaped.join('|')})`;
  return { name, label, queried, displayed: values.join(' + ') };
}

/** Return the values of a variable when its dashboard is opened. */
async function current(
  model: VariableModel,
  range: TimeRange,
  before: Record<string, string>,
): Promise<string[]> {
  const chosen = [model.current?.value ?? []].flat().filter((value) => value !== '');
  if (chosen.includes('$__all') || model.type !== 'query') {
    return chosen.map((value) => automatic(model, value, range));
  }
  const existing = await labelValues(fill(queryOf(model), before), range);
  const valid = chosen.filter((value) => existing.includes(value));
  return valid.length > 0 ? valid : existing.slice(0, 1);
}

function queryOf(model: VariableModel): string {
  const { query } = model;
  return typeof query === 'object' ? String(query.query) : (query ?? '');
}

/** Return the interval for the value "auto" of an interval variable. */
function automatic(model: VariableModel, value: string, range: TimeRange): string {
  const { auto_count = 30, auto_min } = model as { auto_count?: number; auto_min?: string };
  return value.startsWith('$__auto')
    ? rangeUtil.calculateInterval(range, auto_count, auto_min).interval
    : value;
}

/** Escape a value for a regular expression within a string. */
function escape(value: string): string {
  return value.replace(/[\\^$*+?.()|[\]{}]/g, '\\\\$&').replaceAll('"', '\\"');
}
