/** What Grafana does to data before a panel shows it: transformations, then units, colours, … */
import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  FieldColorModeId,
  FieldType,
  Registry,
  standardTransformers,
  standardTransformersRegistry,
  ThresholdsMode,
  transformDataFrame,
  type DataFrame,
  type DataTransformerConfig,
  type Field,
  type FieldConfigPropertyItem,
  type FieldConfigSource,
  type GrafanaTheme2,
  type ThresholdsConfig,
} from '@grafana/data';
import type { Panel } from '@grafana/schema';
import { firstValueFrom } from 'rxjs';

// Some of them are in the list twice, under an older name.
const transformers = new Map(Object.values(standardTransformers).map((each) => [each.id, each]));
standardTransformersRegistry.setInit(() =>
  [...transformers].map(([id, transformer]) => ({
    id,
    name: transformer.name,
    transformation: async () => transformer,
    editor: () => null,
    imageDark: '',
    imageLight: '',
  })),
);

export function transform(panel: Panel, data: DataFrame[]): Promise<DataFrame[]> {
  const steps = (panel.transformations ?? []) as DataTransformerConfig[];
  return firstValueFrom(transformDataFrame(steps, data));
}

/** The field settings of a panel, with what Grafana takes where one says nothing. */
export function fieldConfig(panel: Panel): FieldConfigSource {
  const { defaults, overrides } = structuredClone(
    panel.fieldConfig ?? { defaults: {}, overrides: [] },
  ) as FieldConfigSource;
  defaults.thresholds ??= {
    mode: ThresholdsMode.Absolute,
    steps: [
      { value: -Infinity, color: 'green' },
      { value: 80, color: 'red' },
    ],
  };
  if (panel.type === 'timeseries') {
    defaults.color ??= { mode: FieldColorModeId.PaletteClassic };
    defaults.custom = { lineWidth: 1, fillOpacity: 0, pointSize: 5, ...defaults.custom };
  }
  const changed = overrides
    .flatMap((rule) => rule.properties)
    .filter((each) => each.id === 'thresholds');
  for (const thresholds of [defaults.thresholds, ...changed.map((each) => each.value)]) {
    fromTheLeast(thresholds);
  }
  return { defaults, overrides };
}

/** Give each field its settings and what formats and colours its values. */
export function dress(
  data: DataFrame[],
  config: FieldConfigSource,
  theme: GrafanaTheme2,
  replaceVariables: (text?: string) => string,
): DataFrame[] {
  const fieldConfigRegistry = new Registry(() => properties(config));
  const dressed = applyFieldOverrides({
    data,
    fieldConfig: config,
    fieldConfigRegistry,
    replaceVariables: (text) => replaceVariables(text),
    theme,
    timeZone: 'browser',
  });
  cacheFieldDisplayNames(dressed); // where a table looks for them
  return dressed;
}

/** JSON has no infinity: the first step's value is null there. */
function fromTheLeast({ steps }: ThresholdsConfig): void {
  for (const step of steps) {
    step.value ??= -Infinity;
  }
}

const OF_ALL = [
  'unit',
  'displayName',
  'noValue',
  'thresholds',
  'mappings',
  'links',
  'color',
  'filterable',
];
const OF_NUMBERS = ['min', 'max', 'decimals', 'fieldMinMax'];

/**
 * What can be set on a field: Grafana's own properties, and those of the panel's kind that are set
 * here. A property is taken as it is, so that no list of each kind's is needed.
 */
function properties({ defaults, overrides }: FieldConfigSource): FieldConfigPropertyItem[] {
  const changed = overrides.flatMap((rule) => rule.properties.map((each) => each.id));
  const custom = new Set([
    ...Object.keys(defaults.custom ?? {}),
    ...changed.filter((id) => id.startsWith('custom.')).map((id) => id.slice('custom.'.length)),
  ]);
  const isNumber = (field: Field) => field.type === FieldType.number;
  return [
    ...OF_ALL.map((path) => property(path, path)),
    ...OF_NUMBERS.map((path) => ({ ...property(path, path), shouldApply: isNumber })),
    ...[...custom].map((path) => ({ ...property(`custom.${path}`, path), isCustom: true })),
  ];
}

function property(id: string, path: string): FieldConfigPropertyItem {
  const unused = () => null;
  return {
    id,
    path,
    name: id,
    editor: unused,
    override: unused,
    process: (value) => value,
    shouldApply: () => true,
  };
}
