// Renders the templates of a Helm chart with Go's template engine and Sprig, as Helm does, for
// machines that Helm itself cannot be had on.
//
//	echo '{"values": {…}, "release": "r", "namespace": "n", "apis": ["…"]}' | render CHART
//
// prints {"templates/x.yaml": "…"} or, on standard error, why it could not. Values come merged.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

type request struct {
	Values    map[string]interface{}
	Release   string
	Namespace string
	Apis      []string
}

type files struct{ root string }

func (f files) Get(name string) string {
	data, err := os.ReadFile(filepath.Join(f.root, name))
	if err != nil {
		return "" // as Helm
	}
	return string(data)
}

type apis []string

func (a apis) Has(name string) bool {
	for _, one := range a {
		if one == name {
			return true
		}
	}
	return false
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func functions(set *template.Template) template.FuncMap {
	own := sprig.TxtFuncMap()
	// Helm takes these two away, so that a chart cannot read the machine that it is rendered on.
	delete(own, "env")
	delete(own, "expandenv")
	own["toYaml"] = func(value interface{}) string {
		data, err := yaml.Marshal(value)
		check(err)
		return strings.TrimSuffix(string(data), "\n")
	}
	own["fromYaml"] = func(text string) map[string]interface{} {
		found := map[string]interface{}{}
		check(yaml.Unmarshal([]byte(text), &found))
		return found
	}
	own["required"] = func(message string, value interface{}) (interface{}, error) {
		if value == nil || value == "" {
			return value, fmt.Errorf("%s", message)
		}
		return value, nil
	}
	own["include"] = func(name string, data interface{}) (string, error) {
		var out bytes.Buffer
		err := set.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	return own
}

func main() {
	root := os.Args[1]
	var asked request
	check(json.NewDecoder(os.Stdin).Decode(&asked))
	chart := map[string]interface{}{}
	text, err := os.ReadFile(filepath.Join(root, "Chart.yaml"))
	check(err)
	check(yaml.Unmarshal(text, &chart))
	described := map[string]interface{}{}
	for key, value := range chart { // .Chart.AppVersion is appVersion in the file
		described[strings.ToUpper(key[:1])+key[1:]] = value
	}
	set := template.New("chart").Option("missingkey=zero")
	set.Funcs(functions(set))
	names, err := filepath.Glob(filepath.Join(root, "templates", "*"))
	check(err)
	for _, name := range names {
		text, err := os.ReadFile(name)
		check(err)
		_, err = set.New("templates/" + filepath.Base(name)).Parse(string(text))
		check(err)
	}
	context := map[string]interface{}{
		"Values": asked.Values,
		"Chart":  described,
		"Release": map[string]interface{}{
			"Name": asked.Release, "Namespace": asked.Namespace, "Service": "Helm", "Revision": 1,
		},
		"Files":        files{root},
		"Capabilities": map[string]interface{}{"APIVersions": apis(asked.Apis)},
	}
	rendered := map[string]string{}
	for _, name := range names {
		if base := filepath.Base(name); !strings.HasPrefix(base, "_") {
			var out bytes.Buffer
			check(set.ExecuteTemplate(&out, "templates/"+base, context))
			rendered["templates/"+base] = strings.ReplaceAll(out.String(), "<no value>", "")
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(rendered))
}
