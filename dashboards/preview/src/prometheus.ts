/** Call the HTTP API of Prometheus through the server of this page. */
import type { Labels, TimeRange } from '@grafana/data';

/** One series of a result; samples are (seconds since the epoch, number as text). */
export interface Series {
  labels: Labels;
  samples: Array<[number, string]>;
}

export async function queryRange(expr: string, range: TimeRange, step: number): Promise<Series[]> {
  // At multiples of the step, like Grafana, so that pictures of one range have the same points.
  const start = Math.floor(seconds(range.from) / step) * step;
  const end = Math.floor(seconds(range.to) / step) * step;
  return series(await call('query_range', { query: expr, start, end, step }));
}

export async function queryInstant(expr: string, range: TimeRange): Promise<Series[]> {
  return series(await call('query', { query: expr, time: seconds(range.to) }));
}

/** Return the values of `label_values(label)` or `label_values(selector, label)`. */
export async function labelValues(query: string, range: TimeRange): Promise<string[]> {
  const parts = /^label_values\((?:(.+),)?\s*(\w+)\s*\)$/.exec(query.trim());
  if (!parts) {
    throw new Error(`the query of a variable must be label_values(…), not ${query}`);
  }
  const [, selector, label] = parts;
  return call(`label/${label}/values`, {
    start: seconds(range.from),
    end: seconds(range.to),
    ...(selector && { 'match[]': selector }),
  });
}

type Result =
  | { resultType: 'scalar'; result: [number, string] }
  | { resultType: 'vector'; result: Array<{ metric: Labels; value: [number, string] }> }
  | { resultType: 'matrix'; result: Array<{ metric: Labels; values: Array<[number, string]> }> };

function series(answer: Result): Series[] {
  switch (answer.resultType) {
    case 'scalar':
      return [{ labels: {}, samples: [answer.result] }];
    case 'vector':
      return answer.result.map(({ metric, value }) => ({ labels: metric, samples: [value] }));
    case 'matrix':
      return answer.result.map(({ metric, values }) => ({ labels: metric, samples: values }));
  }
}

async function call<T>(path: string, parameters: Record<string, string | number>): Promise<T> {
  const query = new URLSearchParams(Object.entries(parameters).map(([k, v]) => [k, String(v)]));
  const response = await fetch(`/api/v1/${path}?${query}`);
  const answer = await response.json().catch(() => ({ error: response.statusText }));
  if (answer.status !== 'success') {
    throw new Error(answer.error);
  }
  return answer.data;
}

function seconds(time: TimeRange['from']): number {
  return time.valueOf() / 1000;
}
