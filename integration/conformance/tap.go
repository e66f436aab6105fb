// Package tap stands in for the small package that the validation suite prints its results with, which no archive has.
package tap

import (
	"encoding/json"
	"fmt"
	"strings"
)

// T counts the results that were printed.
type T struct {
	count *int
	todo  bool
}

func New() *T { return &T{count: new(int)} }

// Header begins a report; with a count of 0 the plan comes at its end, from AutoPlan.
func (t *T) Header(count int) {
	fmt.Println("TAP version 13")
	if count > 0 {
		fmt.Printf("1..%d\n", count)
	}
}

func (t *T) AutoPlan() { fmt.Printf("1..%d\n", *t.count) }

func (t *T) Ok(passed bool, what string) {
	*t.count++
	result, directive := "ok", ""
	if !passed {
		result = "not ok"
	}
	if t.todo {
		directive = " # TODO"
	}
	fmt.Printf("%s %d - %s%s\n", result, *t.count, what, directive)
}

func (t *T) Pass(what string) { t.Ok(true, what) }

func (t *T) Fail(what string) { t.Ok(false, what) }

func (t *T) Skip(count int, why string) {
	for ; count > 0; count-- {
		*t.count++
		fmt.Printf("ok %d # SKIP %s\n", *t.count, why)
	}
}

// Todo is for results that are expected to be failures.
func (t *T) Todo() *T { return &T{count: t.count, todo: true} }

func (t *T) Diagnostic(text string) {
	fmt.Println("# " + strings.ReplaceAll(text, "\n", "\n# "))
}

func (t *T) Diagnosticf(format string, values ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, values...))
}

// YAML prints details of the last result: JSON is YAML.
func (t *T) YAML(details interface{}) error {
	text, err := json.MarshalIndent(details, "  ", "  ")
	if err == nil {
		fmt.Printf("  ---\n  %s\n  ...\n", text)
	}
	return err
}
