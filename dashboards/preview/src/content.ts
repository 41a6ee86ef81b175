/** From a panel's JSON to what is drawn of it: its queries asked, its data dressed. */
import type { DataFrame, FieldConfigSource, GrafanaTheme2, TimeRange } from '@grafana/data';
import type { Panel } from '@grafana/schema';

import { dress, fieldConfig, transform } from './fields';
import { byName, fill, type Page, type Settings } from './load';
import { query } from './query';

export interface Content {
  panel: Panel;
  data: DataFrame[];
  config: FieldConfigSource;
  range: TimeRange;
  replaceVariables: (text?: string) => string;
  /** Why there is no data. */
  error?: string;
}

/** What each kind of panel is drawn from. */
export interface PanelProps extends Content {
  width: number;
  height: number;
}

/** Ask the queries of a panel that is `width` pixels wide. */
export async function content(
  panel: Panel,
  { range, variables }: Page,
  { step }: Settings,
  theme: GrafanaTheme2,
  width: number,
): Promise<Content> {
  const shown = byName(variables, 'shown');
  const replaceVariables = (text = '') => fill(text, shown);
  const config = fieldConfig(panel);
  const made: Content = { panel, data: [], config, range, replaceVariables };
  try {
    const context = { range, variables: byName(variables, 'queried'), scrape: step, width };
    const data = await transform(panel, await query(panel, context));
    return { ...made, data: dress(data, config, theme, replaceVariables) };
  } catch (error) {
    return { ...made, error: error instanceof Error ? error.message : String(error) };
  }
}
