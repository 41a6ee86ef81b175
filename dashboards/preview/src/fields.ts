/** Prepare data for a panel as Grafana does: transformations, then units, colours, … */
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

// Some are in the list twice, the second time under an older name.
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

/** Return the field settings of a panel, with the defaults of Grafana. */
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
  if (panel.type === 'timeseries' || panel.type === 'trend') {
    defaults.color ??= { mode: FieldColorModeId.PaletteClassic };
    defaults.custom = { lineWidth: 1, fillOpacity: 0, pointSize: 5, ...defaults.custom };
  }
  const changed = overrides
    .flatMap((rule) => rule.properties)
    .filter((each) => each.id === 'thresholds');
  for (const thresholds of [defaults.thresholds, ...changed.map((each) => each.value)]) {
    setLowestStep(thresholds);
  }
  return { defaults, overrides };
}

/** Apply the settings to each field, with the functions that format and colour its values. */
export function applySettings(
  data: DataFrame[],
  config: FieldConfigSource,
  theme: GrafanaTheme2,
  replaceVariables: (text?: string) => string,
): DataFrame[] {
  const fieldConfigRegistry = new Registry(() => properties(config));
  const applied = applyFieldOverrides({
    data,
    fieldConfig: config,
    fieldConfigRegistry,
    replaceVariables: (text) => replaceVariables(text),
    theme,
    timeZone: 'browser',
  });
  cacheFieldDisplayNames(applied); // tables read them there
  return applied;
}

/** Replace null, which JSON has for the infinite value of the first step. */
function setLowestStep({ steps }: ThresholdsConfig): void {
  for (const step of steps) {
    step.value ??= -Infinity;
  }
}

const ALL_FIELDS = [
  'unit',
  'displayName',
  'noValue',
  'thresholds',
  'mappings',
  'links',
  'color',
  'filterable',
];
const NUMBER_FIELDS = ['min', 'max', 'decimals', 'fieldMinMax'];

/**
 * Return the properties that can be set on a field: those of all panels, and those that this panel
 * sets. Values are not validated, so no list of the properties of each panel type is needed.
 */
function properties({ defaults, overrides }: FieldConfigSource): FieldConfigPropertyItem[] {
  const changed = overrides.flatMap((rule) => rule.properties.map((each) => each.id));
  const custom = new Set([
    ...Object.keys(defaults.custom ?? {}),
    ...changed.filter((id) => id.startsWith('custom.')).map((id) => id.slice('custom.'.length)),
  ]);
  const isNumber = (field: Field) => field.type === FieldType.number;
  return [
    ...ALL_FIELDS.map((path) => property(path, path)),
    ...NUMBER_FIELDS.map((path) => ({ ...property(path, path), shouldApply: isNumber })),
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
