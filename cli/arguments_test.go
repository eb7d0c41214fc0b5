package cli

import (
	"strings"
	"testing"
)

func TestOptionsFirst(t *testing.T) {
	for in, want := range map[string]string{
		"":                                        "",
		"list":                                    "list",
		"stats web":                               "stats web",
		"stats web --json":                        "stats --json web",
		"stats --json web":                        "stats --json web",
		"stop web --timeout 5s":                   "stop --timeout 5s web",
		"stop web -timeout 5s":                    "stop -timeout 5s web",
		"stop web --timeout=5s":                   "stop --timeout=5s web",
		"stop --timeout 5s web":                   "stop --timeout 5s web",
		"stop web --timeout":                      "stop --timeout", // complains of the value
		"stop web --colour blue":                  "stop --colour web blue",
		"stop web -":                              "stop web -",
		"disk resize web vda 1G -h":               "disk resize -h web vda 1G",
		"disk resize web vda -- -1G -h":           "disk resize -- web vda -1G -h",
		"disk --help resize web":                  "disk --help resize web",
		"run stray --cpus 1":                      "run --cpus 1 stray",
		"run --append --x --no-reboot":            "run --append --x --no-reboot",
		"boot --now":                              "--now boot",
		"--colour run":                            "--colour run",
		"stop web --t --generate-bash-completion": "stop web --t --generate-bash-completion",
	} {
		got := optionsFirst(append([]string{"ebb"}, strings.Fields(in)...), commands())
		if s := strings.Join(got[1:], " "); s != want || got[0] != "ebb" {
			t.Errorf("%q becomes %q, want %q", in, s, want)
		}
	}
}
