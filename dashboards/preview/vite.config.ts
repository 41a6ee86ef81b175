import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [react()],
  // Grafana's components load their icons from build/img/icons.
  base: '/build/',
  publicDir: 'node_modules/@grafana/ui/dist/public',
  build: { outDir: 'built', emptyOutDir: true, target: 'es2022', chunkSizeWarningLimit: 20_000 },
});
