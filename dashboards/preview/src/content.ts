/** Run the queries of a panel, and apply its transformations and settings to the results. */
import type { DataFrame, FieldConfigSource, GrafanaTheme2, TimeRange } from '@grafana/data';
import type { Panel } from '@grafana/schema';

import { applySettings, fieldConfig, transform } from './fields';
import { byName, fill, type Page, type Settings } from './load';
import { query } from './query';

export interface Content {
  panel: Panel;
  data: DataFrame[];
  config: FieldConfigSource;
  range: TimeRange;
  replaceVariables: (text?: string) => string;
  /** The reason if there is no data. */
  error?: string;
}

/** The properties of each panel component. */
export interface PanelProps extends Content {
  width: number;
  height: number;
}

/** Run the queries of a panel that is `width` pixels wide. */
export async function content(
  panel: Panel,
  { range, variables }: Page,
  { step }: Settings,
  theme: GrafanaTheme2,
  width: number,
): Promise<Content> {
  const displayed = byName(variables, 'displayed');
  const replaceVariables = (text = '') => fill(text, displayed);
  const config = fieldConfig(panel);
  const made: Content = { panel, data: [], config, range, replaceVariables };
  try {
    const context = { range, variables: byName(variables, 'queried'), scrape: step, width };
    const data = await transform(panel, await query(panel, context));
    return { ...made, data: applySettings(data, config, theme, replaceVariables) };
  } catch (error) {
    return { ...made, error: error instanceof Error ? error.message : String(error) };
  }
}
