/** One component for each panel type, built from Grafana's components. */
import { FieldMatcherID, fieldMatchers, renderTextPanelMarkdown } from '@grafana/data';
import {
  LegendDisplayMode,
  type OptionsWithLegend,
  type TableOptions,
  type VizLegendOptions,
} from '@grafana/schema';
import {
  defaultOptions as barsDefaults,
  type Options as BarsOptions,
} from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import {
  defaultOptions as statDefaults,
  type Options as StatOptions,
} from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import { BarGauge, BigValue, preparePlotFrame, TimeSeries, useTheme2 } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import type { ComponentProps, FC } from 'react';

import type { PanelProps } from './content';
import { Repeat, type Repeated } from './repeat';

/** One number for each series, over its line. */
function Stat(props: PanelProps) {
  const theme = useTheme2();
  const options = { ...statDefaults, ...props.panel.options } as StatOptions;
  const draw = ({ value, orientation: _, ...place }: Repeated) => (
    <BigValue
      {...(options as Pick<ComponentProps<typeof BigValue>, 'colorMode' | 'graphMode'>)}
      {...place}
      value={value.display}
      sparkline={value.sparkline && { ...value.sparkline, timeRange: props.range }}
      disableWideLayout={!options.wideLayout}
      theme={theme}
    />
  );
  const sparkline = options.graphMode !== 'none';
  return (
    <Repeat
      {...props}
      {...{ options, draw, sparkline }}
      layout={{ autoGrid: true, itemSpacing: 3 }}
    />
  );
}

/** One bar for each series. */
function Bars(props: PanelProps) {
  const theme = useTheme2();
  const options = { ...barsDefaults, ...props.panel.options } as BarsOptions;
  const { minVizWidth, minVizHeight, maxVizHeight } =
    options.sizing === 'manual' ? options : barsDefaults;
  const layout = { itemSpacing: 10, minVizWidth, minVizHeight, maxVizHeight };
  const draw = ({ value, alignmentFactors, ...place }: Repeated) => (
    <BarGauge
      {...options}
      {...place}
      value={
        // a single bar has a name only if the panel sets it
        place.count === 1 && !props.config.defaults.displayName
          ? { ...value.display, title: undefined }
          : value.display
      }
      field={value.field}
      display={value.view?.getFieldDisplayProcessor(value.colIndex ?? 0)}
      valueDisplayMode={options.valueMode}
      alignmentFactors={place.count > 1 ? alignmentFactors : undefined}
      itemSpacing={layout.itemSpacing}
      theme={theme}
    />
  );
  return <Repeat {...props} {...{ options, draw, layout }} sparkline={false} />;
}

const LEGEND: VizLegendOptions = {
  displayMode: LegendDisplayMode.List,
  placement: 'bottom',
  showLegend: true,
  calcs: [],
};

function Lines({ panel, data, range, width, height }: PanelProps) {
  const options = panel.options as Partial<OptionsWithLegend> | undefined;
  const legend = { ...LEGEND, ...options?.legend };
  return (
    <TimeSeries frames={data} timeRange={range} timeZone="browser" {...{ legend, width, height }} />
  );
}

/** Lines along a field of numbers, which is not a time. */
function Trend({ panel, data, range, width, height }: PanelProps) {
  const options = panel.options as (Partial<OptionsWithLegend> & { xField?: string }) | undefined;
  const x = fieldMatchers.get(FieldMatcherID.byName).get(options?.xField);
  return (
    <TimeSeries
      frames={data}
      timeRange={range}
      timeZone="browser"
      preparePlotFrame={(frames, fields) => preparePlotFrame(frames, { ...fields, x })}
      legend={{ ...LEGEND, ...options?.legend }}
      {...{ width, height }}
    />
  );
}

function Table({ panel, data, config, range, width, height }: PanelProps) {
  const options = panel.options as Partial<TableOptions> | undefined;
  return (
    <TableNG
      data={data[options?.frameIndex ?? 0]}
      fieldConfig={config}
      noHeader={options?.showHeader === false}
      sortBy={options?.sortBy}
      cellHeight={options?.cellHeight}
      timeRange={range}
      enableVirtualization={false}
      {...{ width, height }}
    />
  );
}

function Text({ panel, replaceVariables }: PanelProps) {
  const html = renderTextPanelMarkdown(replaceVariables(String(panel.options?.content ?? '')));
  return <div className="markdown-html" dangerouslySetInnerHTML={{ __html: html }} />;
}

export const PANEL_COMPONENTS: Record<string, FC<PanelProps>> = {
  stat: Stat,
  bargauge: Bars,
  timeseries: Lines,
  table: Table,
  trend: Trend,
  text: Text,
};
