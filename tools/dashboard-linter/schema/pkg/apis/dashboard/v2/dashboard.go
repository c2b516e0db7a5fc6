// Package v2 names what dashboard-linter reads of a dashboard of Grafana's schema v2. Ours are
// classic dashboards, and the module of the real declarations could not be fetched: this lets the
// linter be built, and leaves what it reads of v2 empty.
package v2

type DashboardVariableRefresh string

const (
	DashboardVariableRefreshOnDashboardLoad    DashboardVariableRefresh = "onDashboardLoad"
	DashboardVariableRefreshOnTimeRangeChanged DashboardVariableRefresh = "onTimeRangeChanged"
)

type Datasource struct{ Name *string }

type DashboardDataQueryKind struct {
	Group      string
	Datasource *Datasource
	Spec       map[string]any
}

type DashboardPanelQueryKind struct {
	Spec struct {
		RefId  string
		Hidden bool
		Query  DashboardDataQueryKind
	}
}

type DashboardPanelSpec struct {
	Id          float64
	Title       string
	Description string
	Data        struct {
		Spec struct{ Queries []DashboardPanelQueryKind }
	}
	VizConfig struct {
		Group string
		Spec  struct{ FieldConfig, Options any }
	}
}

type DashboardElement struct {
	PanelKind *struct{ Spec DashboardPanelSpec }
}

type DashboardAnnotationQueryKind struct {
	Spec struct {
		Name  string
		Query DashboardDataQueryKind
	}
}

type Variable struct {
	Name     string
	Label    *string
	AllValue *string
	Multi    bool
	Refresh  DashboardVariableRefresh
	PluginId string
}

type QueryVariable struct {
	Variable
	Query DashboardDataQueryKind
}

type TextVariable struct {
	Variable
	Query string
}

type DashboardVariableKind struct {
	QueryVariableKind                                              *struct{ Spec QueryVariable }
	DatasourceVariableKind, AdhocVariableKind, GroupByVariableKind *struct{ Spec Variable }
	SwitchVariableKind                                             *struct{ Spec Variable }
	CustomVariableKind, IntervalVariableKind, ConstantVariableKind *struct{ Spec TextVariable }
	TextVariableKind                                               *struct{ Spec TextVariable }
}

type DashboardSpec struct {
	Title       string
	Editable    *bool
	Elements    map[string]DashboardElement
	Variables   []DashboardVariableKind
	Annotations []DashboardAnnotationQueryKind
}
