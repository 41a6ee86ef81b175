/** Load the dashboard, run its queries, draw it, and return the result to `draw.mjs`. */
import { createTheme, ThemeContext, type GrafanaTheme2 } from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import type { Panel, RowPanel } from '@grafana/schema';
import { GlobalStyles } from '@grafana/ui';
import type { ReactNode } from 'react';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';

import { content } from './content';
import { fill, byName, load, type Page, type Settings } from './load';
import { box, Dashboard, type Cell } from './page';
import { PANEL_COMPONENTS } from './panels';

declare global {
  interface Window {
    __grafana_public_path__: string;
    settings: Settings;
    /** Set when the page is complete: skipped panels, failed queries, or a fatal error. */
    drawn?: { skipped: string[]; failed: string[]; fatal?: string };
  }
}

async function draw(settings: Settings): Promise<void> {
  const theme = createTheme({ colors: { mode: settings.theme } });
  const root = createRoot(document.getElementById('page')!);
  const show = (page?: ReactNode) =>
    root.render(
      <ThemeContext.Provider value={theme}>
        <GlobalStyles />
        {page}
      </ThemeContext.Provider>,
    );
  // Fonts load first: text in a canvas does not change when its font is loaded later.
  flushSync(() => show());
  await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 12px Inter`)));

  const page = await load(settings);
  const cells = await Promise.all(page.panels.map((panel) => cell(panel, page, settings, theme)));
  flushSync(() => show(<Dashboard page={page} cells={cells} width={settings.width} />));
  window.drawn = {
    skipped: page.panels
      .filter((panel) => !isRow(panel) && !(panel.type in PANEL_COMPONENTS))
      .map(({ type, title }) => `${type} "${title}"`),
    failed: cells.flatMap(({ title, content }) =>
      content?.error ? [`"${title}": ${content.error}`] : [],
    ),
  };
}

async function cell(
  panel: Panel | RowPanel,
  page: Page,
  settings: Settings,
  theme: GrafanaTheme2,
): Promise<Cell> {
  const { x = 0, y = 0, w = 24, h = 1 } = panel.gridPos ?? {};
  const place = box({ x, y, w, h }, settings.width);
  const title = fill(panel.title ?? '', byName(page.variables, 'displayed'));
  return isRow(panel)
    ? { title, place }
    : { title, place, content: await content(panel, page, settings, theme, place.width) };
}

function isRow(panel: Panel | RowPanel): panel is RowPanel {
  return panel.type === 'row';
}

window.__grafana_public_path__ = '/';
await initPluginTranslations('grafana-ui');
await draw(window.settings).catch((error) => {
  window.drawn = { skipped: [], failed: [], fatal: error.message };
});
