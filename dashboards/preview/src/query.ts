/** Run a panel's queries; return data frames like those of Grafana's Prometheus data source. */
import {
  createDataFrame,
  FieldType,
  rangeUtil,
  type DataFrame,
  type Labels,
  type TimeRange,
} from '@grafana/data';
import type { Panel } from '@grafana/schema';

import { fill } from './load';
import { queryInstant, queryRange, type Series } from './prometheus';

/** The parts of a query that the Prometheus data source reads. */
interface Target {
  refId: string;
  expr: string;
  hide?: boolean;
  instant?: boolean;
  range?: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
  legendFormat?: string;
  /** Minimum step. */
  interval?: string;
}

/** Inputs of the queries of one panel. */
export interface Context {
  range: TimeRange;
  variables: Record<string, string>;
  /** Seconds between two scrapes. */
  scrape: number;
  /** Width of the panel in pixels, and the maximum number of points. */
  width: number;
}

export async function query(panel: Panel, context: Context): Promise<DataFrame[]> {
  const targets = (panel.targets ?? []) as unknown as Target[];
  const active = targets.filter((target) => target.expr && !target.hide);
  const tables = active.filter((target) => target.format === 'table').length;
  const answers = active.map((target) => answer(target, panel, context, tables > 1));
  return (await Promise.all(answers)).flat();
}

async function answer(
  target: Target,
  panel: Panel,
  { range, variables, scrape, width }: Context,
  severalTables: boolean,
): Promise<DataFrame[]> {
  const least = fill(target.interval || panel.interval || `${scrape}s`, variables);
  const points = panel.maxDataPoints ?? width;
  const { interval, intervalMs } = rangeUtil.calculateInterval(range, points, least);
  const step = intervalMs / 1000;
  const expr = fill(target.expr, { ...variables, ...builtIn(range, interval, step, scrape) });
  const over = !target.instant || target.range;
  const found = over ? await queryRange(expr, range, step) : await queryInstant(expr, range);
  return target.format === 'table'
    ? [table(found, target.refId, severalTables)]
    : found.map((series) => lineFrame(series, target, intervalMs));
}

/** Return the variables that Grafana defines. */
function builtIn(range: TimeRange, interval: string, step: number, scrape: number) {
  const [from, to] = [range.from.valueOf(), range.to.valueOf()];
  const seconds = Math.round((to - from) / 1000);
  return {
    __interval: interval,
    __interval_ms: String(step * 1000),
    __rate_interval: `${Math.max(step + scrape, 4 * scrape)}s`,
    __range: `${seconds}s`,
    __range_s: String(seconds),
    __range_ms: String(to - from),
    __from: String(from),
    __to: String(to),
  };
}

function lineFrame(series: Series, target: Target, intervalMs: number): DataFrame {
  const { labels } = series;
  const samples = withGaps(series.samples, intervalMs);
  const name = legend(labels, target);
  return createDataFrame({
    refId: target.refId,
    name,
    fields: [
      { name: 'Time', type: FieldType.time, values: times(samples) },
      {
        name: 'Value',
        type: FieldType.number,
        labels,
        config: { displayNameFromDS: name },
        values: numbers(samples),
      },
    ],
  });
}

/** Return the name of a series; undefined if Grafana derives it from the labels. */
function legend(labels: Labels, { legendFormat, expr }: Target): string | undefined {
  const { __name__ = '', ...others } = labels;
  if (legendFormat === '__auto') {
    return Object.keys(labels).length > 0 ? undefined : expr;
  }
  if (legendFormat) {
    return legendFormat.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => labels[label] ?? '');
  }
  const pairs = Object.entries(others).map(([label, value]) => `${label}="${value}"`);
  return __name__ + (pairs.length > 0 ? `{${pairs.join(', ')}}` : '') || expr;
}

/** Return a row for each sample and a column for each label. */
function table(series: Series[], refId: string, several: boolean): DataFrame {
  const labels = [...new Set(series.flatMap((each) => Object.keys(each.labels)))].sort();
  const rows = series.flatMap((each) => each.samples.map((sample) => ({ ...each, sample })));
  const samples = rows.map((row) => row.sample);
  return createDataFrame({
    refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: times(samples) },
      ...labels.map((label) => ({
        name: label,
        type: FieldType.string,
        values: rows.map((row) => row.labels[label] ?? ''),
      })),
      {
        name: several ? `Value #${refId}` : 'Value',
        type: FieldType.number,
        values: numbers(samples),
      },
    ],
  });
}

/** Add an empty sample in each gap, so that the line ends there. */
function withGaps(samples: Series['samples'], stepMs: number): Series['samples'] {
  return samples.flatMap((sample, index) => {
    const next = samples[index + 1];
    const gap = next !== undefined && (next[0] - sample[0]) * 1000 > stepMs;
    return gap ? [sample, [sample[0] + stepMs / 1000, ''] as Series['samples'][number]] : [sample];
  });
}

function times(samples: Series['samples']): number[] {
  return samples.map(([seconds]) => seconds * 1000);
}

/** Parse values; JavaScript spells `Inf` as `Infinity`. */
function numbers(samples: Series['samples']): (number | null)[] {
  return samples.map(([, text]) => (text === '' ? null : Number(text.replace('Inf', 'Infinity'))));
}
