/** Grafana's types of a dashboard and its panels, as JSON has them. */
import type {
  AnnotationQuery,
  Dashboard,
  GraphFieldConfig,
  Panel,
  RowPanel,
  TableFieldOptions,
  VariableModel,
} from '@grafana/schema';
import type { Options as BarGauge } from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type {
  FieldConfig as HeatmapField,
  Options as Heatmap,
} from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type { Options as Stat } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as Table } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type { Options as TimeSeries } from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type {
  FieldConfig as TrendField,
  Options as Trend,
} from '@grafana/schema/dist/esm/raw/composable/trend/panelcfg/x/TrendPanelCfg_types.gen';

/** Text in place of the members of enumerations, which JSON does not have; Grafana fills gaps. */
type Json<T> = unknown extends T
  ? unknown
  : T extends string
    ? `${T}`
    : T extends (infer Item)[]
      ? Json<Item>[]
      : T extends object
        ? { [Key in keyof T]?: Json<T[Key]> }
        : T;

/** What a query for Prometheus says. */
interface Query {
  refId: string;
  expr: string;
  datasource: { type: 'prometheus'; uid: '${datasource}' };
  exemplar?: boolean;
  format?: 'heatmap' | 'table' | 'time_series';
  instant?: boolean;
  legendFormat?: string;
  range?: boolean;
}

type FieldConfig = NonNullable<Panel['fieldConfig']>;

/** A panel of one kind, whose options the general type leaves open. */
type Of<Type extends string, Options, Field = Record<string, never>> = Omit<
  Json<Panel>,
  'fieldConfig' | 'options' | 'targets' | 'type'
> & {
  type: Type;
  targets: Query[];
  options?: Json<Options>;
  fieldConfig: {
    defaults: Omit<Json<FieldConfig['defaults']>, 'custom'> & { custom?: Json<Field> };
    overrides: Json<FieldConfig['overrides']>;
  };
};

/** Grafana looks at these of intervals alone; the SDK writes them for all variables. */
type OfIntervals = { auto?: false; auto_count?: 30; auto_min?: '10s' };
/** The query as text, which the settings show; the published type leaves it out. */
type Shown = { definition?: string };
type Variable = Json<VariableModel> & OfIntervals & Shown;
/** Of Grafanas before 12; the SDK writes it for all tables, and newer ones move it on. */
type OldFooter = { footer?: { countRows: false; reducer: []; show: false } };
/** What the data source for Prometheus reads of an annotation. */
type Annotation = Omit<Json<AnnotationQuery>, 'target'> & {
  target: Query;
  expr: string;
  tagKeys: string;
  textFormat: string;
  titleFormat: string;
  useValueForTime: boolean;
};

/** The options of the list of alerts, which the published types leave out. */
interface AlertList {
  alertInstanceLabelFilter: string;
  alertName: string;
  dashboardAlerts: boolean;
  groupBy: string[];
  groupMode: 'custom' | 'default';
  maxItems: number;
  /** By name up and down, by importance, by time up and down. */
  sortOrder: 1 | 2 | 3 | 4 | 5;
  stateFilter: Record<'error' | 'firing' | 'noData' | 'normal' | 'pending', boolean>;
  viewMode: 'list' | 'stat';
}

export type Page = Omit<Json<Dashboard>, 'annotations' | 'panels' | 'templating'> & {
  annotations: { list?: Annotation[] };
  templating: { list: Variable[] };
};
export interface Panels {
  alertlist: Omit<Json<Panel>, 'options' | 'type'> & { type: 'alertlist'; options: AlertList };
  bargauge: Of<'bargauge', BarGauge>;
  heatmap: Of<'heatmap', Heatmap, HeatmapField>;
  row: Json<RowPanel>;
  stat: Of<'stat', Stat>;
  table: Of<'table', Table & OldFooter, TableFieldOptions>;
  timeseries: Of<'timeseries', TimeSeries, GraphFieldConfig>;
  trend: Of<'trend', Trend, TrendField>;
}
