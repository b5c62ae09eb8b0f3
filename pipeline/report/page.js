// Draws every chart of the page and gives it the colours of the window's light or dark scheme.
// A trace names a place of the palette (meta.series; -1 is muted), never a colour. Palettes are told apart by
// colour-blind readers (after Okabe and Ito 2008), one set for white and one for black paper.
"use strict";
(() => {
  const themes = {
    light: {
      ink: "#1c2024", quiet: "#5c656e", line: "#dfe3e6", ground: "#ffffff", muted: "#9aa3ab",
      series: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e0a100", "#56b4e9", "#5b3a8c", "#7d5a3c"],
      scale: [[0, "#eef3f8"], [0.5, "#7fb2d9"], [1, "#08519c"]],
    },
    dark: {
      ink: "#e8eaec", quiet: "#a3acb4", line: "#343a40", ground: "#1c2024", muted: "#79828a",
      series: ["#4da3de", "#f0803c", "#2ec195", "#e59bc4", "#f5c242", "#a5dcfa", "#a98bdf", "#c49a78"],
      scale: [[0, "#222c36"], [0.5, "#2f6ea5"], [1, "#a6d3f5"]],
    },
  };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)");
  const narrow = window.matchMedia("(max-width: 40rem)");
  const settings = { responsive: true, displayModeBar: false, showTips: false };

  function coloured(trace, theme) {
    const place = trace.meta ? trace.meta.series : 0;
    const colour = place < 0 ? theme.muted : theme.series[place];
    if (trace.type === "heatmap") return { ...trace, colorscale: theme.scale };
    if (trace.type === "bar") {
      return {
        ...trace, marker: { ...trace.marker, color: colour, line: { color: theme.ground, width: 1 } },
        insidetextfont: { color: theme.ground }, outsidetextfont: { color: theme.ink },
      };
    }
    return { ...trace, line: { ...trace.line, color: colour }, marker: { ...trace.marker, color: colour } };
  }

  function axis(given, theme) {
    return {
      ...given, gridcolor: theme.line, zerolinecolor: theme.line, linecolor: theme.line, automargin: true,
      title: { ...given.title, font: { size: 12, color: theme.quiet }, standoff: 10 },
      tickfont: { size: narrow.matches ? 10 : 12 }, separatethousands: true,
    };
  }

  function laidOut(layout, theme) {
    const zooms = layout.meta && layout.meta.zoom && !coarse.matches;
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: theme.ink },
      margin: { l: 8, r: 12, t: 8, b: 8 },
      xaxis: axis(layout.xaxis || {}, theme),
      yaxis: { ...axis(layout.yaxis || {}, theme), fixedrange: true },
      separators: ".,",
      dragmode: zooms ? "zoom" : false,
      legend: {
        ...layout.legend, orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom",
        font: { size: 12 }, itemclick: "toggle", maxheight: 0.9, bgcolor: "rgba(0,0,0,0)",
      },
      hoverlabel: { bgcolor: theme.ground, bordercolor: theme.line, font: { color: theme.ink }, namelength: -1 },
    };
  }

  // In a narrow window the legend takes a line a name or two: the box grows, so that the plot keeps its height.
  function legendPixels(figure) {
    const named = figure.data.filter((trace) => trace.showlegend !== false).length;
    const hidden = figure.layout.showlegend === false || named < 4;
    return narrow.matches && !hidden ? 16 * named : 0;
  }

  function draw() {
    const theme = dark.matches ? themes.dark : themes.light;
    for (const source of document.querySelectorAll("script.chart-data")) {
      const figure = JSON.parse(source.textContent);
      const box = document.getElementById(source.id.replace("data-", "chart-"));
      box.style.height = `${Number(box.dataset.height) + legendPixels(figure)}px`;
      Plotly.react(box, figure.data.map((trace) => coloured(trace, theme)), laidOut(figure.layout, theme), settings);
    }
  }

  draw();
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
  // A chart drawn while its box was hidden or being laid out takes the box's real width once it has one.
  const watcher = new ResizeObserver((entries) => entries.forEach((entry) => {
    if (entry.contentRect.width > 0) Plotly.Plots.resize(entry.target);
  }));
  document.querySelectorAll(".chart").forEach((box) => watcher.observe(box));
})();
