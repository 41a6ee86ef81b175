/** Draw the page: a header, and the panels at their positions in the dashboard. */
import { dateTimeFormat } from '@grafana/data';
import { Icon, PanelChrome, Text, useTheme2 } from '@grafana/ui';
import type { CSSProperties } from 'react';

import type { Content } from './content';
import type { Page } from './load';
import { PANEL_COMPONENTS } from './panels';

/** A panel, or the heading of a row if there is no content. */
export interface Cell {
  title: string;
  place: Box;
  content?: Content;
}

/** A place on the page, in pixels. */
interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

const COLUMNS = 24;
const ROW = 30;
const GAP = 8;
const EDGE = 16;
const HEADER = 40;

/** Return the place on the page of a cell in the dashboard's grid. */
export function box(grid: { x: number; y: number; w: number; h: number }, pageWidth: number): Box {
  const column = (pageWidth - 2 * EDGE - (COLUMNS - 1) * GAP) / COLUMNS;
  return {
    left: Math.round(EDGE + grid.x * (column + GAP)),
    top: HEADER + EDGE + grid.y * (ROW + GAP),
    width: Math.round(grid.w * column + (grid.w - 1) * GAP),
    height: grid.h * ROW + (grid.h - 1) * GAP,
  };
}

export function Dashboard({ page, cells, width }: { page: Page; cells: Cell[]; width: number }) {
  const bottom = Math.max(HEADER, ...cells.map(({ place }) => place.top + place.height));
  return (
    <main style={{ position: 'relative', width, height: bottom + EDGE }}>
      <Header {...page} />
      {cells.map(({ title, place, content }, index) => (
        <div key={index} style={{ position: 'absolute', ...place }}>
          {content ? <Framed {...{ title, place, content }} /> : <Heading title={title} />}
        </div>
      ))}
    </main>
  );
}

function Header({ title, range, variables }: Page) {
  const { colors, spacing } = useTheme2();
  const style: CSSProperties = {
    height: HEADER,
    padding: spacing(0, 2),
    display: 'flex',
    alignItems: 'center',
    gap: EDGE,
    background: colors.background.primary,
    borderBottom: `1px solid ${colors.border.weak}`,
  };
  return (
    <header style={style}>
      <Text element="h1" variant="h4">
        {title}
      </Text>
      <span style={{ flexGrow: 1 }} />
      {variables.map(({ name, label, displayed }) => (
        <Text key={name} variant="bodySmall" color="secondary">
          {label}: {shortened(displayed) || 'none'}
        </Text>
      ))}
      <Text variant="bodySmall">
        {dateTimeFormat(range.from)} to {dateTimeFormat(range.to)}{' '}
        {Intl.DateTimeFormat().resolvedOptions().timeZone}
      </Text>
    </header>
  );
}

/** Cut an id, so that the header is one line. */
function shortened(text: string): string {
  return /^[0-9a-f]{32}$/.test(text) ? text.slice(0, 8) : text;
}

function Heading({ title }: { title: string }) {
  return (
    <div style={{ height: '100%', display: 'flex', alignItems: 'center', gap: GAP }}>
      <Icon name="angle-down" />
      <Text element="h2" variant="h5">
        {title}
      </Text>
    </div>
  );
}

function Framed({ title, place, content }: Required<Cell>) {
  const { panel, data, config, replaceVariables, error } = content;
  const PanelComponent = PANEL_COMPONENTS[panel.type];
  // The other panel types have a text for missing data.
  const empty = ['timeseries', 'table'].includes(panel.type) && !data.some((frame) => frame.length);
  const missing = !(panel.type in PANEL_COMPONENTS) && 'not drawn here';
  const text = missing || (empty && (config.defaults.noValue || 'No data'));
  return (
    <PanelChrome
      width={place.width}
      height={place.height}
      title={title}
      description={panel.description && replaceVariables(panel.description)}
      displayMode={panel.transparent ? 'transparent' : 'default'}
      padding={['table', 'stat'].includes(panel.type) ? 'none' : 'md'}
      statusMessage={error}
    >
      {(width: number, height: number) =>
        text ? (
          <div style={{ height, display: 'grid', placeContent: 'center' }}>
            <Text color="secondary">{text}</Text>
          </div>
        ) : (
          <PanelComponent {...content} width={width} height={height} />
        )
      }
    </PanelChrome>
  );
}
