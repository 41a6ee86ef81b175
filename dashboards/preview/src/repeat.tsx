/** Draw one value per series side by side; the common part of stat and bar gauge. */
import {
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  VizOrientation,
  type DisplayValueAlignmentFactors,
  type FieldDisplay,
} from '@grafana/data';
import type { SingleStatBaseOptions } from '@grafana/schema';
import { useTheme2, VizRepeater, type VizRepeaterRenderValueProps } from '@grafana/ui';
import type { JSX } from 'react';

import type { PanelProps } from './content';

/** One value, with its place. */
export type Repeated = VizRepeaterRenderValueProps<FieldDisplay, DisplayValueAlignmentFactors>;
type Layout = Partial<VizRepeater<FieldDisplay, DisplayValueAlignmentFactors>['props']>;

interface RepeatProps extends PanelProps {
  options: SingleStatBaseOptions;
  draw: (value: Repeated) => JSX.Element;
  sparkline: boolean;
  layout: Layout;
}

export function Repeat({ options, draw, sparkline, layout, ...props }: RepeatProps) {
  const theme = useTheme2();
  const { data, width, height } = props;
  const values = () =>
    getFieldDisplayValues({
      data,
      fieldConfig: props.config,
      reduceOptions: {
        ...options.reduceOptions,
        calcs: options.reduceOptions?.calcs ?? ['lastNotNull'],
      },
      sparkline,
      replaceVariables: (text, scoped) =>
        props.replaceVariables(
          text?.replace(
            /\$\{__field\.labels\.(\w+)\}/g,
            (_, label) => scoped?.__dataContext?.value.field.labels?.[label] ?? '',
          ),
        ),
      theme,
    });
  return (
    <VizRepeater
      {...layout}
      {...{ width, height }}
      orientation={(options.orientation ?? 'auto') as VizOrientation}
      source={data}
      getValues={values}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={draw}
      renderCounter={1}
    />
  );
}
