// Command licences reads directories of Go modules, one a line, and prints one JSON object for each:
// the licence files in it, the SPDX ids that were found in them, and how much of a file they cover.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/google/licensecheck"
)

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([-_.].*)?$`)

type file struct {
	Name    string   `json:"name"`
	IDs     []string `json:"ids"`
	Percent float64  `json:"percent"`
}

type module struct {
	Directory string `json:"directory"`
	Files     []file `json:"files"`
}

func main() {
	output := json.NewEncoder(os.Stdout)
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		found, err := read(input.Text())
		if err == nil {
			err = output.Encode(found)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func read(directory string) (module, error) {
	found := module{Directory: directory, Files: []file{}}
	entries, err := os.ReadDir(directory)
	if err != nil {
		return found, err
	}
	for _, entry := range entries {
		if entry.IsDir() || filepath.Ext(entry.Name()) == ".go" || !licenceFile.MatchString(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(directory, entry.Name()))
		if err != nil {
			return found, err
		}
		coverage := licensecheck.Scan(text)
		ids := []string{}
		for _, match := range coverage.Match {
			ids = append(ids, match.ID)
		}
		found.Files = append(found.Files, file{entry.Name(), ids, coverage.Percent})
	}
	return found, nil
}
